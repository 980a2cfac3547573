"""How a member and a peer do, as one number, and the words and colours for it."""

from panels import BAD, GOOD, WARN, names

# 2 for a probe that came back, 1 for both streams from the peer open.
STATES = {
    3: ("hears", GOOD),
    2: ("no stream", WARN),
    1: ("no answer", WARN),
    0: ("cut", BAD),
}
SELF, NOT_SCRAPED = 4, 5
MATRIX_STATES = {**STATES, SELF: ("·", "transparent"), NOT_SCRAPED: ("not scraped", "purple")}

UP = {1: ("up", GOOD), 0: ("down", BAD)}

EXPLAINED = """*hears*: the member's probe of the peer succeeds and both streams from the peer are open. *no stream*: the probe
succeeds, a stream from the peer is missing. *no answer*: streams are open, but the probe fails: the peer is frozen or overloaded.
*cut*: neither."""

TO_PEER = {
    "title": "This peer in depth",
    "url": "/d/rafthttp-peer?${datasource:queryparam}&${job:queryparam}&${cluster:queryparam}"
           "&var-peer=${__field.labels.peer}&${__url_time_range}",
    "targetBlank": False,
}


def state(matchers):
    """A link's state by member and peer. Who probes and has no streams (`rafthttp probe`) hears what it reaches."""
    by = "job, cluster, instance, peer"
    reached = f"rafthttp_peer_reachable{{{matchers}}}"
    streams = f'min by ({by}) (rafthttp_stream_up{{{matchers}, direction="in"}})'
    return f"(2 * {reached} + on ({by}) {streams}) or on ({by}) 3 * {reached}"


def matrix():
    """The state of every link, by the names of its ends; each member by itself; and who is known and not scraped."""
    as_from = f'label_replace(label_replace({names()}, "from", "$1", "name", "(.*)"), "member", "$1", "peer", "(.*)")'
    as_to = f'label_replace({names()}, "to", "$1", "name", "(.*)")'
    to = f"({state('[[M]]')}) * on (job, cluster, peer) group_left (to) {as_to}"
    info = "rafthttp_member_info{[[M]]}"
    by_member = f"max by (job, cluster, member, to) (({to}) * on (job, cluster, instance) group_left (member) {info})"
    links = f"min by (from, to) ({by_member} * on (job, cluster, member) group_left (from) {as_from})"
    own = f"max by (job, cluster, member) ({info})"
    both = 'label_replace(max by (from) (%s), "to", "$1", "from", "(.*)")'
    itself = both % f"{SELF} * ({own} * on (job, cluster, member) group_left (from) {as_from})"
    unseen = both % f"{NOT_SCRAPED} * ({as_from} unless on (job, cluster, member) rafthttp_member_info{{[[C]]}})"
    return f"{links} or {itself} or {unseen}"
