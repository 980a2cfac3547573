//! TLS 1.3 alone, without a socket: how fast one thread encrypts or decrypts, for each cipher suite and size of a write. A
//! stream cannot be faster than the slower of the two.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig, ServerConnection, SideData,
    SupportedCipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::PrivateKeyDer,
    version::TLS13,
};

/// Two ends that have shaken hands and agreed on this cipher suite.
fn pair(suite: SupportedCipherSuite) -> (ClientConnection, ServerConnection) {
    let key = KeyPair::generate().expect("aws-lc-rs makes P-256 keys");
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).expect("a name").self_signed(&key).expect("a key");
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() });
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a certificate");
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the suite is one of TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the suite is one of TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("a key that fits");
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
    let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
    client.set_buffer_limit(None);
    while client.wants_write() || server.wants_write() {
        hand_over(&mut client, &mut server);
        hand_over(&mut server, &mut client);
    }
    (client, server)
}

/// Writes what an end has to send.
fn send<Side: SideData>(end: &mut ConnectionCommon<Side>, records: &mut Vec<u8>) {
    while end.wants_write() {
        end.write_tls(records).expect("memory");
    }
}

/// Has one end read what the other has to send.
fn hand_over<One: SideData, Other: SideData>(from: &mut ConnectionCommon<One>, to: &mut ConnectionCommon<Other>) {
    let mut records = Vec::new();
    send(from, &mut records);
    let mut records = &records[..];
    while !records.is_empty() {
        to.read_tls(&mut records).expect("memory");
        to.process_new_packets().expect("a handshake");
    }
}

/// Has an end read these records, and passes over what is in them.
fn decrypt(server: &mut ServerConnection, mut records: &[u8]) {
    let mut plain = [0; 16 << 10];
    while !records.is_empty() {
        server.read_tls(&mut records).expect("memory");
        server.process_new_packets().expect("records of the other end");
        while server.reader().read(&mut plain).is_ok_and(|read| read > 0) {}
    }
}

fn speed(criterion: &mut Criterion) {
    for size in [128 << 10, 1 << 20] {
        let plain = vec![7; size];
        let mut group = criterion.benchmark_group(format!("{} KiB", size >> 10));
        group.throughput(Throughput::Bytes(size as u64));
        for suite in aws_lc_rs::default_provider().cipher_suites {
            if suite.tls13().is_none() {
                continue;
            }
            let name = format!("{:?}", suite.suite());
            let (mut client, mut server) = pair(suite);
            let mut records = Vec::with_capacity(size + (size >> 8));
            let mut encrypt = |records: &mut Vec<u8>| {
                client.writer().write_all(&plain).expect("memory");
                records.clear();
                send(&mut client, records);
            };
            group.bench_function(BenchmarkId::new("decrypt", &name), |bencher| {
                // Records can only be read once, and in order.
                bencher.iter_batched_ref(
                    || {
                        encrypt(&mut records);
                        records.clone()
                    },
                    |records| decrypt(&mut server, records),
                    BatchSize::PerIteration,
                );
            });
            group.bench_function(BenchmarkId::new("encrypt", &name), |bencher| bencher.iter(|| encrypt(&mut records)));
        }
        group.finish();
    }
}

criterion_group!(benches, speed);
criterion_main!(benches);
