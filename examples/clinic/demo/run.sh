#!/bin/sh
# The whole life of the clinic on an embedded workspace: prints what a user would type and the real answers.
# Stops at the first step that fails, and always cleans up after itself.
set -eu

clinic=$(cd "$(dirname "$0")/.." && pwd)
# Some twenty clusters of a thousand files each: in memory where there is room, so that a slow disk does not tell the story.
memory=/dev/shm
if [ -w "$memory" ] && [ "$(df -Pk "$memory" | awk 'NR == 2 { print $4 }')" -gt 4000000 ]; then
    folder=$(mktemp -d "$memory/lakeforge-demo.XXXXXX")
else
    folder=$(mktemp -d)
fi
# Postgres may run as another user, which has to reach its data below this folder.
chmod 711 "$folder"
export LAKEFORGE_LOCAL_DIR="$folder/workspace"
unset DATABRICKS_HOST DATABRICKS_TOKEN DATABRICKS_CLIENT_ID DATABRICKS_CLIENT_SECRET \
    DATABRICKS_CONFIG_PROFILE DATABRICKS_CONFIG_FILE DATABRICKS_BUNDLE_TARGET LAKEFORGE_PROJECT || true

clean_up() {
    code=$?
    trap - EXIT INT TERM
    if [ "$code" -ne 0 ]; then
        echo
        echo "the demo stopped (exit $code)" >&2
    fi
    lakeforge --quiet local stop >/dev/null 2>&1 || true
    rm -rf "$folder"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() {
    printf '\n\033[1m%s\033[0m\n' "$*"
}

# Prints a command as it would be typed, then runs it.
run() {
    printf '\n$ %s\n' "$*"
    eval "$*"
}

# Answers how many patients a branch has.
patients() {
    lakeforge --quiet creds exec "patient/$1" -- psql -Atqc 'select count(*) from patient'
}

# Prints a count and stops the demo when it is not the one expected.
expect() {
    printf '  %-28s %s\n' "$1" "$2"
    [ "$2" = "$3" ] || { echo "  expected $3" >&2; exit 1; }
}

# The bundle is copied, so that the demo leaves no trace in the example.
cp -R "$clinic" "$folder/clinic"
cd "$folder/clinic"
rm -f resources/lakebase.yml
started=$(date +%s)

say "An embedded workspace: real Postgres behind the platform's API"
run "lakeforge local start --port 0"

say "Topology from a few lines of lakeforge.yml"
run "lakeforge gen"

say "Six databases and seven apps, all at once"
run "lakeforge deploy"
run "lakeforge migrate"
run "lakeforge smoke"

say "Rows through an app, behind its gateway"
url=$(lakeforge --quiet -o json smoke --app patient | sed -n 's/.*"url":"\([^"]*\)\/api\/patient\/healthz".*/\1/p')
token=$(lakeforge --quiet creds mint --workspace)
for name in Ada Grace Edsger Barbara; do
    printf '$ curl -X POST %s/api/patient -d %s\n' "$url" "'{\"name\":\"$name\",…}'"
    printf 'header = "Authorization: Bearer %s"\n' "$token" | curl --config - --silent --show-error --fail \
        --header 'Content-Type: application/json' --data "{\"name\":\"$name\",\"birth_date\":\"1912-06-23\"}" \
        "$url/api/patient"
    echo
done
expect "production" "$(patients production)" 4

say "A branch in all six projects, all or nothing"
run "lakeforge branch create pr-7 --all --ttl 1d"

say "A destructive migration on the branch; production does not notice"
run "lakeforge creds exec patient/pr-7 -- psql -q -f demo/drop_birth_date.sql"
expect "pr-7" "$(patients pr-7)" 2
expect "production" "$(patients production)" 4

say "Rows deleted by mistake in production, and the branch that has them back"
moment=$(lakeforge --quiet creds exec patient/production -- psql -Atqc \
    "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
run "lakeforge creds exec patient/production -- psql -c 'delete from patient'"
expect "production" "$(patients production)" 0
run "lakeforge branch restore before-mistake --project patient --at $moment --ttl 1d"
expect "before-mistake" "$(patients before-mistake)" 4

say "SQL with a password that lives for an hour"
run "lakeforge creds exec patient/before-mistake -- psql -c 'select name, birth_date from patient order by name'"

say "Pull request 7 is closed: what nobody needs any more goes"
echo '[{"number": 7, "state": "MERGED"}, {"number": 12, "state": "OPEN"}]' >pull-requests.json
run "lakeforge gc --prs pull-requests.json --grace 1ms"
run "lakeforge gc --prs pull-requests.json --grace 1ms --apply --yes"
run "lakeforge branch list --project patient"
lakeforge --quiet branch list --project patient | grep -q pr-7 && { echo "pr-7 is still there" >&2; exit 1; }

say "Done"
run "lakeforge local stop"
printf '\nthe demo took %s s\n' "$(($(date +%s) - started))"
