//! The library's own families: the one place that has their names.

use std::time::{SystemTime, UNIX_EPOCH};

use super::family::{Family, MetricKind, Of, Samples};
use crate::{
    ledger::{AttemptResult, Channel, Direction, Histogram, MessageKind, PerChannel, PerKind, ProbeResult},
    wire::FrameErrorKind,
};

pub(super) mod snapshots;

/// The two channels that are streams.
const STREAMS: [Channel; 2] = [Channel::MsgApp, Channel::Message];

/// The families of the ledger, of links and probes, of time, and of the process.
pub(crate) static FAMILIES: &[Family] = &[
    Family {
        name: "rafthttp_messages_offered_total",
        help: "Messages given to send or send_snapshot for a known peer.",
        kind: MetricKind::Counter,
        labels: &["peer", "type"],
        of: Of::Receivers(|outgoing, peer, samples| by_type(peer, &outgoing.offered, samples)),
    },
    Family {
        name: "rafthttp_messages_sent_total",
        help: "Messages that were given to the connection of a stream, or whose POST succeeded.",
        kind: MetricKind::Counter,
        labels: &["peer", "type", "channel"],
        of: Of::Receivers(|outgoing, peer, samples| by_channel_and_type(peer, &outgoing.sent, samples)),
    },
    Family {
        name: "rafthttp_messages_dropped_total",
        help: "Messages dropped on the sending side.",
        kind: MetricKind::Counter,
        labels: &["peer", "type", "channel", "reason"],
        of: Of::Receivers(|outgoing, peer, samples| {
            for ((kind, channel, reason), count) in outgoing.dropped.iter() {
                samples.count(&[peer, kind.label(), channel.label(), reason.label()], count);
            }
        }),
    },
    Family {
        name: "rafthttp_messages_queued",
        help: "Messages that are neither sent nor dropped yet, including requests in progress.",
        kind: MetricKind::Gauge,
        labels: &["peer", "channel"],
        of: Of::Receivers(|outgoing, peer, samples| {
            for (channel, queued) in outgoing.queued.iter() {
                samples.gauge(&[peer, channel.label()], *queued as f64);
            }
        }),
    },
    Family {
        name: "rafthttp_messages_unconfirmed",
        help: "Messages written before the newest probe that the peer has not confirmed as read.",
        kind: MetricKind::Gauge,
        labels: &["peer", "channel"],
        of: Of::Peers(|peer, samples| {
            for (stream, unconfirmed) in peer.status.outgoing.unconfirmed.iter() {
                if let Some(unconfirmed) = unconfirmed {
                    samples.gauge(&[peer.id, stream.channel().label()], *unconfirmed as f64);
                }
            }
        }),
    },
    Family {
        name: "rafthttp_messages_lost_total",
        help: "Messages written to a stream that ended before the peer read them.",
        kind: MetricKind::Counter,
        labels: &["peer", "channel"],
        of: Of::Peers(|peer, samples| {
            for (stream, lost) in peer.status.outgoing.lost.iter() {
                samples.count(&[peer.id, stream.channel().label()], *lost);
            }
        }),
    },
    Family {
        name: "rafthttp_messages_unroutable_total",
        help: "Messages without a receiver, or to a member that is neither peer nor remote.",
        kind: MetricKind::Counter,
        labels: &["reason"],
        of: Of::Transport(|status, samples| {
            for (reason, count) in status.unroutable.iter() {
                samples.count(&[reason], count);
            }
        }),
    },
    Family {
        name: "rafthttp_messages_received_total",
        help: "Messages decoded from the wire, without link heartbeats.",
        kind: MetricKind::Counter,
        labels: &["peer", "type", "channel"],
        of: Of::Senders(|incoming, peer, samples| by_channel_and_type(peer, &incoming.received, samples)),
    },
    Family {
        name: "rafthttp_messages_waiting",
        help: "Received messages that are neither processed nor rejected yet.",
        kind: MetricKind::Gauge,
        labels: &["peer"],
        of: Of::Senders(|incoming, peer, samples| samples.gauge(&[peer], incoming.waiting as f64)),
    },
    Family {
        name: "rafthttp_messages_processed_total",
        help: "Messages that the application accepted.",
        kind: MetricKind::Counter,
        labels: &["peer", "type"],
        of: Of::Senders(|incoming, peer, samples| by_type(peer, &incoming.processed, samples)),
    },
    Family {
        name: "rafthttp_messages_rejected_total",
        help: "Received messages that were not processed.",
        kind: MetricKind::Counter,
        labels: &["peer", "type", "reason"],
        of: Of::Senders(|incoming, peer, samples| {
            for ((kind, reason), count) in incoming.rejected.iter() {
                samples.count(&[peer, kind.label(), reason.label()], count);
            }
        }),
    },
    Family {
        name: "rafthttp_peer_reachable",
        help: "Whether the last probe of the peer succeeded.",
        kind: MetricKind::Gauge,
        labels: &["peer"],
        of: Of::Probed(|peer, samples| {
            if let Some(reachable) = peer.status.link.reachable {
                samples.gauge(&[peer.id], f64::from(u8::from(reachable)));
            }
        }),
    },
    Family {
        name: "rafthttp_probe_duration_seconds",
        help: "Raw round trips of successful probes on a warm connection.",
        kind: MetricKind::Histogram,
        labels: &["peer"],
        of: Of::Probed(|peer, samples| {
            samples.histogram(&[peer.id], &peer.status.link.probe_seconds, &Histogram::BOUNDS);
        }),
    },
    Family {
        name: "rafthttp_probes_total",
        help: "Probes by result.",
        kind: MetricKind::Counter,
        labels: &["peer", "result"],
        of: Of::Probed(|peer, samples| {
            for result in ProbeResult::ALL {
                samples.count(&[peer.id, result.label()], peer.status.link.probes.of(result));
            }
        }),
    },
    Family {
        name: "rafthttp_probe_dial_seconds",
        help: "Duration of the phases of a probe's dial, if it had to dial.",
        kind: MetricKind::Histogram,
        labels: &["peer", "phase"],
        of: Of::Probed(|peer, samples| {
            for (phase, histogram) in peer.status.link.dial_seconds.iter() {
                samples.histogram(&[peer.id, phase.label()], histogram, &Histogram::BOUNDS);
            }
        }),
    },
    Family {
        name: "rafthttp_peer_clock_offset_seconds",
        help: "The peer's clock minus ours, at the middle of the last round trip.",
        kind: MetricKind::Gauge,
        labels: &["peer"],
        of: Of::Probed(|peer, samples| {
            if let Some(offset) = peer.status.link.clock_offset {
                samples.gauge(&[peer.id], offset);
            }
        }),
    },
    Family {
        name: "rafthttp_stream_up",
        help: "Whether the stream is open.",
        kind: MetricKind::Gauge,
        labels: &["peer", "channel", "direction"],
        of: Of::Peers(|peer, samples| {
            for (stream, ways) in peer.status.link.stream_up.iter() {
                for (direction, up) in ways.iter() {
                    let labels = [peer.id, stream.channel().label(), direction.label()];
                    samples.gauge(&labels, f64::from(u8::from(*up)));
                }
            }
        }),
    },
    Family {
        name: "rafthttp_stream_attempts_total",
        help: "Dials of streams by result.",
        kind: MetricKind::Counter,
        labels: &["peer", "channel", "result"],
        of: Of::Peers(|peer, samples| {
            for channel in STREAMS {
                for result in AttemptResult::ALL {
                    let count = peer.status.link.attempts.of((channel, result));
                    samples.count(&[peer.id, channel.label(), result.label()], count);
                }
            }
        }),
    },
    Family {
        name: "rafthttp_stream_losses_total",
        help: "Open streams that ended, by reason.",
        kind: MetricKind::Counter,
        labels: &["peer", "channel", "direction", "reason"],
        of: Of::Peers(|peer, samples| {
            for ((channel, direction, reason), count) in peer.status.link.losses.iter() {
                samples.count(&[peer.id, channel.label(), direction.label(), reason.label()], count);
            }
        }),
    },
    Family {
        name: "rafthttp_stream_last_frame_timestamp_seconds",
        help: "Time of the last frame, including link heartbeats.",
        kind: MetricKind::Gauge,
        labels: &["peer", "channel", "direction"],
        of: Of::Peers(|peer, samples| {
            let ways = [peer.status.incoming.last_frame, peer.status.outgoing.last_frame];
            for (direction, times) in Direction::ALL.iter().zip(ways) {
                for (stream, time) in times.iter() {
                    if let Some(time) = time {
                        let labels = [peer.id, stream.channel().label(), direction.label()];
                        samples.gauge(&labels, unix_seconds(*time));
                    }
                }
            }
        }),
    },
    Family {
        name: "rafthttp_frame_errors_total",
        help: "Frames and bodies from a peer that could not be read.",
        kind: MetricKind::Counter,
        labels: &["peer", "channel", "kind"],
        of: Of::Senders(|incoming, peer, samples| {
            let errors = &incoming.frame_errors;
            let of_streams =
                STREAMS.iter().flat_map(|channel| FrameErrorKind::ALL.map(|kind| (*channel, kind.label())));
            for (channel, kind) in of_streams.clone() {
                samples.count(&[peer, channel.label(), kind], errors.of((channel, kind)));
            }
            // The errors that a stream's frames cannot have, and those of the other channels, appear on first use.
            let others = errors.iter().filter(|(key, _)| !of_streams.clone().any(|known| known == *key));
            for ((channel, kind), count) in others {
                samples.count(&[peer, channel.label(), kind], count);
            }
        }),
    },
    Family {
        name: "rafthttp_peer_active",
        help: "Whether the peer is active in etcd's sense: the last stream or request succeeded.",
        kind: MetricKind::Gauge,
        labels: &["peer"],
        of: Of::Peers(|member, samples| {
            samples.gauge(&[member.id], f64::from(u8::from(member.status.link.active_since.is_some())));
        }),
    },
    Family {
        name: "rafthttp_peer_refused",
        help: "Whether the peer is not heard because it came back from another disk or an old copy. 1 if so, 0 otherwise.",
        kind: MetricKind::Gauge,
        labels: &["peer"],
        of: Of::Peers(|peer, samples| {
            samples.gauge(&[peer.id], f64::from(u8::from(peer.status.refused().is_some())));
        }),
    },
    Family {
        // Only for peers: a remote's URLs are merely what it says of itself.
        name: "rafthttp_peer_info",
        help: "The peer's name and URLs.",
        kind: MetricKind::Gauge,
        labels: &["peer", "name", "urls"],
        of: Of::Probed(|peer, samples| {
            let urls = peer.status.urls.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(",");
            samples.gauge(&[peer.id, &peer.status.name, &urls], 1.0);
        }),
    },
    Family {
        name: "rafthttp_peer_version_info",
        help: "Versions that a watched member reports while it answers: its server's and its cluster's.",
        kind: MetricKind::Gauge,
        labels: &["peer", "version", "cluster_version"],
        of: Of::Probed(|peer, samples| {
            let told = peer.status.watched().and_then(|watched| Some((watched.version?, watched.cluster_version)));
            if let Some((version, cluster)) = told {
                let cluster = cluster.map(|version| version.to_string()).unwrap_or_default();
                samples.gauge(&[peer.id, &version.to_string(), &cluster], 1.0);
            }
        }),
    },
    Family {
        name: "rafthttp_peer_foreign",
        help: "Whether a watched member answers for another cluster than the watched one.",
        kind: MetricKind::Gauge,
        labels: &["peer"],
        of: Of::Probed(|peer, samples| {
            if let Some(foreign) = peer.status.watched().and_then(|watched| watched.is_foreign) {
                samples.gauge(&[peer.id], f64::from(u8::from(foreign)));
            }
        }),
    },
    Family {
        name: "rafthttp_sent_bytes_total",
        help: "Bytes of sent frames and bodies, including link heartbeats.",
        kind: MetricKind::Counter,
        labels: &["peer", "channel"],
        of: Of::Receivers(|outgoing, peer, samples| by_channel(peer, &outgoing.bytes, samples)),
    },
    Family {
        name: "rafthttp_received_bytes_total",
        help: "Bytes of received frames and bodies, including link heartbeats.",
        kind: MetricKind::Counter,
        labels: &["peer", "channel"],
        of: Of::Senders(|incoming, peer, samples| by_channel(peer, &incoming.bytes, samples)),
    },
    Family {
        name: "rafthttp_queue_seconds",
        help: "Time from send to written.",
        kind: MetricKind::Histogram,
        labels: &["peer", "channel"],
        of: Of::Peers(|member, samples| {
            for (channel, histogram) in member.status.outgoing.queue_seconds.iter() {
                samples.histogram(&[member.id, channel.label()], histogram, &Histogram::BOUNDS);
            }
        }),
    },
    Family {
        name: "rafthttp_process_seconds",
        help: "Time that the application took for a batch of messages.",
        kind: MetricKind::Histogram,
        labels: &["peer"],
        of: Of::Senders(|incoming, peer, samples| {
            samples.histogram(&[peer], &incoming.process_seconds, &Histogram::BOUNDS);
        }),
    },
    Family {
        name: "rafthttp_append_round_trip_seconds",
        help: "Time from a sent MsgApp to the MsgAppResp that covers its last index.",
        kind: MetricKind::Histogram,
        labels: &["peer"],
        of: Of::Peers(|member, samples| {
            samples.histogram(&[member.id], &member.status.outgoing.append_round_trip, &Histogram::BOUNDS);
        }),
    },
    Family {
        // Joins a row of a scrape, which has an address, with the ID that other members use.
        name: "rafthttp_member_info",
        help: "This member's ID and its cluster's ID.",
        kind: MetricKind::Gauge,
        labels: &["member", "cluster_id"],
        of: Of::Transport(|status, samples| {
            let cluster = status.cluster.map(|cluster| cluster.to_string()).unwrap_or_default();
            let local = Some(status.local).filter(|local| local.0 != 0).map(|local| local.to_string());
            samples.gauge(&[&local.unwrap_or_default(), &cluster], 1.0);
        }),
    },
    Family {
        name: "rafthttp_build_info",
        help: "The version of this program.",
        kind: MetricKind::Gauge,
        labels: &["version"],
        of: Of::Transport(|_, samples| samples.gauge(&[env!("CARGO_PKG_VERSION")], 1.0)),
    },
];

fn by_type(peer: &str, counts: &PerKind<u64>, samples: &mut dyn Samples) {
    for (kind, count) in used(counts) {
        samples.count(&[peer, kind.label()], count);
    }
}

fn by_channel_and_type(peer: &str, counts: &PerChannel<PerKind<u64>>, samples: &mut dyn Samples) {
    for (channel, counts) in counts.iter() {
        for (kind, count) in used(counts) {
            samples.count(&[peer, kind.label(), channel.label()], count);
        }
    }
}

fn by_channel(peer: &str, counts: &PerChannel<u64>, samples: &mut dyn Samples) {
    for (channel, count) in counts.iter() {
        samples.count(&[peer, channel.label()], *count);
    }
}

/// The counts that are not zero: series with a type appear on first use.
fn used(counts: &PerKind<u64>) -> impl Iterator<Item = (MessageKind, u64)> {
    counts.iter().map(|(kind, count)| (kind, *count)).filter(|(_, count)| *count > 0)
}

pub(super) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -before.duration().as_secs_f64(), |since| since.as_secs_f64())
}
