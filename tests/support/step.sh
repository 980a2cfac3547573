# What the scripts tests/NAME/run share: how a step that cannot run ends, and how one that fails does.

# not_run WHAT: WHY — ends the step.
not_run() { echo "not run: $*"; echo "0 passed, 0 failed"; exit 0; }

failed() { echo "0 passed, 1 failed"; exit 1; }

# only_in_all WHAT HOW — ends the step in every tier but that of everything.
only_in_all() { [ "${RAFTHTTP_TEST_TIER:-test}" = all ] || not_run "$1: make test-all $2"; }

# obtain_tool WHAT NAME — sets `tool` to what tests/tools/NAME prints. Ends the step, of which WHAT would not be run, if it cannot be had.
obtain_tool() {
    local log status=0
    log=$(mktemp)
    tool=$("tests/tools/$2" 2> "$log") || status=$?
    local said
    said=$(cat "$log")
    rm -f "$log"
    # Status 3: it cannot be had here. Any other is a fault of the script.
    [ $status != 3 ] || not_run "$1: $(tail -n 1 <<< "$said")"
    [ $status = 0 ] || { echo "$said" >&2; failed; }
}
