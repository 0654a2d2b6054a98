package e2e

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The drop-in checklist: what must hold for clients of one Prometheus to find a oneprom in its place. Tests say which rows
// they show, and with which client; the list is printed when all tests have run, and is complete, or they have failed.

// Clients that rows are shown with.
const (
	byHTTP         = "HTTP" // probes whose answers are compared with those of upstream's own API
	byGrafana      = "Grafana"
	byGoClient     = "client_golang"
	byPromtool     = "promtool"
	byPrometheus   = "Prometheus"
	byAlertmanager = "Alertmanager"
	byPromqltest   = "promqltest"
)

// checklistRows are the rows with the clients that each must be shown with.
var checklistRows = []struct {
	what    string
	clients []string
}{
	{"query, by GET and POST", []string{byHTTP, byGrafana, byGoClient, byPromtool}},
	{"query_range, by GET and POST", []string{byHTTP, byGrafana, byGoClient, byPromtool}},
	{"errors: JSON, their codes and texts", []string{byHTTP, byGrafana, byGoClient}},
	{"warnings and infos", []string{byHTTP, byGrafana}},
	{"label values", []string{byHTTP, byGrafana, byGoClient, byPromtool}},
	{"labels and series", []string{byHTTP, byGrafana, byGoClient, byPromtool}},
	{"metadata", []string{byGrafana, byGoClient}},
	{"query_exemplars", []string{byGrafana, byGoClient}},
	{"buildinfo", []string{byHTTP, byGrafana, byGoClient}},
	{"rules and alerts", []string{byHTTP, byGrafana, byGoClient}},
	{"healthy and ready", []string{byHTTP, byPromtool}},
	{"status, targets, alertmanagers, features, scrape pools, notifications", []string{byHTTP, byGoClient}},
	{"format_query and parse_query", []string{byHTTP}},
	{"remote read", []string{byPrometheus}},
	{"federate", []string{byHTTP, byPrometheus}},
	{"compression", []string{byHTTP, byGrafana}},
	{"CORS and OPTIONS", []string{byHTTP}},
	{"links to /graph, pages", []string{byHTTP, byAlertmanager}},
	{"request headers: passed on if allowed, logged", []string{byHTTP}},
	{"route prefix and external URL", []string{byHTTP, byGoClient, byPromtool}},
	{"conformance", []string{byPromqltest, byHTTP, byGrafana, byGoClient, byPromtool}},
	{"cancellation and timeouts", []string{byHTTP}},
}

// shown is what tests have shown of the rows, by row and client: whether all of these tests have passed.
var shown = struct {
	mtx  sync.Mutex
	rows map[int]map[string]bool
}{rows: map[int]map[string]bool{}}

// shows tells that a test shows rows of the checklist, counted from 1, with a client.
func shows(t *testing.T, client string, rows ...int) {
	t.Helper()
	for _, n := range rows {
		if !slices.Contains(checklistRows[n-1].clients, client) {
			t.Fatalf("row %d of the checklist is not shown with %s", n, client)
		}
	}
	t.Cleanup(func() {
		shown.mtx.Lock()
		defer shown.mtx.Unlock()
		for _, n := range rows {
			of := shown.rows[n]
			if of == nil {
				of = map[string]bool{}
				shown.rows[n] = of
			}
			before, seen := of[client]
			of[client] = !t.Failed() && !t.Skipped() && (before || !seen)
		}
	})
}

// checkedTests are the tests with the checklist after them.
type checkedTests struct{ *testing.M }

func (c checkedTests) Run() int {
	code := c.M.Run()
	if !allTestsRan() {
		return code
	}
	text, complete := checklist()
	fmt.Fprint(os.Stdout, text)
	if code == 0 && !complete {
		return 1
	}
	return code
}

// allTestsRan reports whether no test was left out, by a flag or a build tag.
func allTestsRan() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.fuzz"} {
		if flag.Lookup(name).Value.String() != "" {
			return false
		}
	}
	return slowTests
}

// checklist writes the rows, and reports whether all are shown.
func checklist() (text string, complete bool) {
	var b strings.Builder
	done := 0
	for i, row := range checklistRows {
		var missing []string
		for _, client := range row.clients {
			if !shown.rows[i+1][client] {
				missing = append(missing, client)
			}
		}
		verdict := "ok"
		if len(missing) == 0 {
			done++
		} else {
			verdict = "NOT SHOWN with " + strings.Join(missing, ", ")
		}
		fmt.Fprintf(&b, "%2d %s (%s): %s\n", i+1, row.what, strings.Join(row.clients, ", "), verdict)
	}
	fmt.Fprintf(&b, "drop-in checklist: %d/%d\n", done, len(checklistRows))
	return b.String(), done == len(checklistRows)
}
