//! etcd's byte counters and ours, of the same traffic.

use rafthttp::wire::raftpb::Message;

use crate::{
    link::{ETCDS, OURS, links, take},
    scrape::Scrape,
    support::{append, heartbeat},
};

/// Messages of 4 KiB: what etcd up to 3.6 writes beyond ours, every scalar that is zero, is 20 bytes at most, and the link
/// heartbeats of the seconds that this takes are a hundred; both far below the 5 % within which the counters agree.
fn traffic(from: u64, to: u64) -> Vec<Message> {
    let context = vec![6; 4 << 10];
    let appends = (1..=500).map(|index| append(from, to, index, &vec![5; 4 << 10]));
    let heartbeats = (1..=500).map(|commit| Message { context: context.clone().into(), ..heartbeat(from, to, commit) });
    appends.chain(heartbeats).collect()
}

#[tokio::test]
async fn the_byte_counters_of_both_sides_agree() {
    for link in links() {
        let registry = prometheus::Registry::new();
        let ours = link.ours_with(|builder| builder.registry(&registry)).await;
        let mut etcds = link.etcds().await;
        ours.transport.add_peer(etcds.id, vec![etcds.url.clone()]).unwrap();
        etcds.add_peer(ours.id, &ours.url).await;
        crate::link::connected(&ours, &mut etcds).await;

        let (out, back) = (traffic(OURS, ETCDS), traffic(ETCDS, OURS));
        ours.transport.send(out.clone());
        link.assert_same(&etcds.take(out.len()).await, &out);
        etcds.send(&back).await;
        link.assert_same(&take(&ours, back.len()).await, &back);

        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let (ours, etcds) = (Scrape::parse(&text), etcds.metrics().await);
        let of = |scrape: &Scrape, name: &str, label: &str, id: u64| {
            let name = format!("etcd_network_peer_{name}_bytes_total");
            scrape.sum(&name, &[(label, &id.to_string())]).unwrap_or_else(|| panic!("{link}: no {name} of {id}"))
        };
        let payload = (1000 * (4 << 10)) as f64;
        for (what, sent, received) in [
            ("ours to etcd's", of(&ours, "sent", "To", ETCDS), of(&etcds, "received", "From", OURS)),
            ("etcd's to ours", of(&etcds, "sent", "To", OURS), of(&ours, "received", "From", ETCDS)),
        ] {
            assert!((0.95..=1.05).contains(&(sent / received)), "{link}: {what}: {sent} sent, {received} received");
            // And both count this traffic, not something that happens to be alike.
            assert!((1.0..=1.05).contains(&(sent / payload)), "{link}: {what}: {sent} sent, {payload} of payload");
        }
    }
}
