//! The system's ports, for hosts as URLs name them: one socket for all URLs that mean the same.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, ToSocketAddrs},
};

use socket2::{Domain, Protocol, Socket, Type};

/// The most connections that may wait to be accepted: the standard library's value.
const BACKLOG: i32 = 128;

/// The meaning of a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum BindAddress {
    /// Every address of this machine, of both families: `0.0.0.0` and `[::]` mean the same (as in Go's `net.Listen`).
    Everywhere(u16),
    /// The first of these addresses that is available.
    At(Vec<SocketAddr>),
}

/// A socket, and the indexes of the hosts that it serves.
#[derive(Debug)]
pub(crate) struct TakenSocket {
    pub(crate) listener: TcpListener,
    pub(crate) of: Vec<usize>,
}

/// Listens for each host and port. Hosts that mean the same share a socket. An address also shares the socket of "all
/// addresses", if both are listed. An error comes with the index of its host.
pub(crate) fn take(wanted: &[(&str, u16)]) -> Result<Vec<TakenSocket>, (usize, io::Error)> {
    let places =
        wanted.iter().enumerate().map(|(asked, (host, port))| BindAddress::of(host, *port).map_err(|e| (asked, e)));
    let places: Vec<BindAddress> = places.collect::<Result<_, _>>()?;
    let mut distinct: Vec<(BindAddress, Vec<usize>)> = Vec::new();
    for (asked, place) in places.iter().enumerate() {
        let everywhere = BindAddress::Everywhere(place.port());
        let place = if places.contains(&everywhere) { everywhere } else { place.clone() };
        // Port 0 is another port each time.
        match distinct.iter_mut().find(|(known, _)| place.port() != 0 && known.is(&place)) {
            Some((_, of)) => of.push(asked),
            None => distinct.push((place, vec![asked])),
        }
    }
    let bind = |(place, of): (BindAddress, Vec<usize>)| match place.bind() {
        Ok(listener) => Ok(TakenSocket { listener, of }),
        Err(error) => Err((of[0], error)),
    };
    distinct.into_iter().map(bind).collect()
}

impl BindAddress {
    fn of(host: &str, port: u16) -> io::Result<Self> {
        let mut addresses: Vec<SocketAddr> = match host.split_once('%') {
            Some(_) => vec![in_zone(host, port)?],
            None => (host, port).to_socket_addrs()?.map(canonical).collect(),
        };
        // IPv4 addresses come first, because Go's `net.Listen` takes `localhost` so.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let everywhere = addresses.first().is_some_and(|first| first.ip().is_unspecified());
        Ok(if everywhere { Self::Everywhere(port) } else { Self::At(addresses) })
    }

    fn port(&self) -> u16 {
        match self {
            Self::Everywhere(port) => *port,
            Self::At(addresses) => addresses.first().map_or(0, SocketAddr::port),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::At(one), Self::At(other)) => one.first() == other.first(),
            (one, other) => one == other,
        }
    }

    fn bind(&self) -> io::Result<TcpListener> {
        match self {
            Self::At(addresses) => TcpListener::bind(addresses.as_slice()),
            Self::Everywhere(port) => match everywhere(*port) {
                // The kernel has no IPv6, or no sockets for both families.
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port))
                }
                outcome => outcome,
            },
        }
    }
}

/// An IPv6 socket that also accepts IPv4 connections.
fn everywhere(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    // As in the standard library: a port is free again as soon as nobody listens on it.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The address of a host with a zone, such as `fe80::1%eth0` or `fe80::1%2`.
pub(crate) fn in_zone(host: &str, port: u16) -> io::Result<SocketAddr> {
    let unknown = |why: String| io::Error::new(io::ErrorKind::NotFound, why);
    let (address, zone) = host.split_once('%').unwrap_or((host, ""));
    let address: Ipv6Addr = address.parse().map_err(|_| unknown(format!("{address:?} is not an IPv6 address")))?;
    // The system gives the number of an interface only as part of a link-local address, so a fixed one is looked up,
    // whatever the address itself.
    let local = (format!("fe80::1%{zone}"), port).to_socket_addrs().ok().and_then(|mut found| found.next());
    match local {
        Some(SocketAddr::V6(local)) => Ok(SocketAddrV6::new(address, port, 0, local.scope_id()).into()),
        _ => Err(unknown(format!("this machine has no interface {zone:?}"))),
    }
}

/// The IPv4 address if this is an IPv4-mapped IPv6 address (`::ffff:10.0.0.1`), the form that a socket for both
/// families reports. Otherwise the address itself.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        address_of_four @ IpAddr::V4(_) => SocketAddr::new(address_of_four, address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, net::TcpStream};

    use super::*;

    /// A port that is free in both families.
    fn free_port() -> u16 {
        everywhere(0).and_then(|listener| listener.local_addr()).expect("a kernel with IPv6").port()
    }

    fn groups(wanted: &[(&str, u16)]) -> Vec<Vec<usize>> {
        take(wanted).expect("free ports").into_iter().map(|taken| taken.of).collect()
    }

    #[test]
    fn all_addresses_of_either_family_are_one_socket_that_serves_both() {
        let port = free_port();
        for hosts in [&["0.0.0.0", "::"][..], &["::", "0.0.0.0"], &["0.0.0.0"], &["::"], &["127.0.0.1", "::", "::1"]] {
            let wanted: Vec<_> = hosts.iter().map(|host| (*host, port)).collect();
            let mut taken = take(&wanted).expect("one socket");
            assert_eq!(taken.len(), 1, "{hosts:?}");
            let TakenSocket { listener, of } = taken.remove(0);
            assert_eq!(of, (0..hosts.len()).collect::<Vec<_>>());
            for client in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()] {
                let mut stream = TcpStream::connect(client).expect("it listens for both families");
                let (accepted, from) = listener.accept().expect("a connection");
                assert_eq!(canonical(from).ip(), client.ip(), "IPv4 is told as IPv4");
                drop(accepted);
                assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
            }
        }
    }

    #[test]
    fn the_same_address_twice_is_one_socket_and_another_is_another() {
        let (port, other) = (free_port(), free_port());
        assert_eq!(groups(&[("127.0.0.1", port), ("localhost", port), ("127.0.0.1", other)]), [vec![0, 1], vec![2]]);
        assert_eq!(groups(&[("::ffff:127.0.0.1", port), ("127.0.0.1", port)]), [vec![0, 1]]);
        assert_eq!(groups(&[("127.0.0.1", port), ("127.0.0.2", port)]), [vec![0], vec![1]]);
        assert_eq!(groups(&[("127.0.0.1", 0), ("127.0.0.1", 0)]), [vec![0], vec![1]], "any two free ports");
    }

    #[test]
    fn what_cannot_be_taken_is_named_by_its_place() {
        let port = free_port();
        let _taken = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let (place, error) = take(&[("127.0.0.2", port), ("127.0.0.1", port)]).expect_err("in use");
        assert_eq!((place, error.kind()), (1, io::ErrorKind::AddrInUse));
        let (place, error) = take(&[("fe80::1%no-such", port)]).expect_err("no interface");
        assert!(place == 0 && error.to_string().contains("no-such"), "{error}");
    }

    #[test]
    fn a_zone_is_the_number_of_an_interface_by_name_or_as_it_is() {
        let scope = |host: &str| match in_zone(host, 1).expect("an interface") {
            SocketAddr::V6(address) => (address.ip().to_string(), address.scope_id()),
            SocketAddr::V4(_) => panic!("an address of IPv6"),
        };
        let (_, loopback) = scope("fe80::1%lo");
        assert_ne!(loopback, 0);
        assert_eq!(scope(&format!("fe80::2%{loopback}")), ("fe80::2".to_owned(), loopback));
        assert_eq!(scope("::1%lo"), ("::1".to_owned(), loopback));
        assert!(in_zone("fe80::1%no-such", 1).is_err());
    }
}
