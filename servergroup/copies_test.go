package servergroup

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// threeHours is a load of series that are scraped for three hours.
func threeHours(series ...string) string {
	load := "load 1m"
	for _, s := range series {
		if load += "\n " + s; !strings.Contains(s, "} ") {
			load += " 1x180"
		}
	}
	return load
}

// TestCopies_AreComparedWithTheData: a metric or a target that only the copies have is found, and `copies_of`
// is not relied on for an hour.
func TestCopies_AreComparedWithTheData(t *testing.T) {
	own := []string{`up{instance="a"}`, `foo{instance="a"}`, `bar{instance="b"}`, `up{instance="b"}`}
	shown := []string{`up{instance="a",region="eu"}`, `foo{instance="a",region="eu"}`, `bar{instance="b",region="eu"}`, `up{instance="b",region="eu"}`}
	for name, row := range map[string]struct {
		archive []string
		holds   []string
		want    string // the series that is found
	}{
		"copies":               {shown, nil, ""},
		"some":                 {shown[2:], nil, ""},
		"a metric more":        {append(shown[1:], `more{instance="a",region="eu"}`), nil, `{__name__="more"}`},
		"a target more":        {append(shown[1:], `up{instance="c",region="eu"}`), nil, `{__name__="up", instance="c", region="eu"}`},
		"labels of others":     {own[3:], nil, `{__name__="up", instance="b"}`},
		"what it holds":        {append(shown[1:], `job:foo{source="oneprom"}`), []string{`{source="oneprom"}`}, ""},
		"more than it holds":   {append(shown[1:], `job:foo{source="other"}`), []string{`{source="oneprom"}`}, `{__name__="job:foo"}`},
		"a metric of long ago": {append(shown[1:], `old{instance="a",region="eu"} 1 stale`), nil, ""},
		"what cannot be asked": {append(shown[1:], `job:foo{source="other"}`), []string{`{source="oneprom",x="y"}`}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			eu := groupOf("eu", backend(t, threeHours(own[:2]...)), backend(t, threeHours(own[1:]...)))
			eu.Labels, eu.Holds = map[string]string{"region": "eu"}, []string{`{region="eu",own="yes"}`} // which matchers cannot leave out
			archive := recent(t, "archive", threeHours(row.archive...))
			archive.CopiesOf, archive.Holds = []string{"eu"}, row.holds
			require.NoError(t, archive.Validate())
			s, c, log := loggedSet(t, eu, archive)
			c.ms.Store(3 * 3600_000)
			s.compareCopies(t.Context())
			var want []string
			if row.want != "" {
				want = []string{"`copies_of` says that all series come from eu, but none of these has " + row.want + ": it is not relied on; name such series in `holds`, the group that they come from in `copies_of`, or remove them"}
			}
			require.Equal(t, want, findingsOf(s, "archive"))
			require.Equal(t, len(want), log.count("it is not relied on"))

			matter := func() string {
				v := s.View(t.Context())
				_, why := v.CopiesMatter(v.Groups[len(v.Groups)-1], matchersOf(t, "foo"))
				return why
			}
			if row.want != "" {
				require.Equal(t, "`copies_of` is contradicted by the data", matter())
			}
			require.Eventually(t, func() bool { // the set compares by itself, too, in the beginning
				c.ms.Add(findings.Age.Milliseconds() + 1)
				return matter() == ""
			}, time.Minute, time.Millisecond)
		})
	}
}

// TestKept: what a server tells of its blocks says which samples it keeps.
func TestKept(t *testing.T) {
	backend := overridden(t, "load 15s\n foo _x2 1x3")
	a, b, c := blockJSON("A", 100, 200, 0), blockJSON("B", 200, 300, 0), blockJSON("C", 300, 400, 0)
	for name, row := range map[string]struct {
		blocks, metrics string
		want            replica.Kept
		unknown         bool
	}{
		"blocks":             {a + "," + b + "," + c, "", replica.Kept{Since: 200, None: 100}, false},
		"one block":          {a, "", replica.Kept{Since: 100, None: 100}, false},
		"a block is missing": {a + "," + c, "", replica.Kept{Since: 200, None: 100, Holes: []replica.Hole{{From: 200, To: 300}}}, false},
		"they overlap":       {blockJSON("A", 100, 250, 0) + "," + b, "", replica.Kept{Since: 250, None: 100}, false},
		"one within another": {blockJSON("A", 100, 250, 0) + "," + blockJSON("L", 120, 180, 0) + "," + b, "", replica.Kept{Since: 250, None: 100}, false},
		"no blocks":          {" ", "", replica.Kept{Since: 30_000, None: -1 << 63}, false},
		"the lowest time":    {"", "prometheus_tsdb_lowest_timestamp 10000\n", replica.Kept{Since: 15_000, None: 10_000}, false},
		"no samples":         {"", "prometheus_tsdb_lowest_timestamp 9.223372036854776e+18\n", replica.Kept{}, true},
		"nothing is told":    {"", "", replica.Kept{}, true},
		"a passing failure":  {"503", "503", replica.Kept{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &pastServer{Handler: backend}
			srv.say("x", row.blocks, row.metrics)
			asked := make(chan struct{}) // closed when it may answer: it is probed from the beginning
			s, _ := setAt(t, groupOf("a", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-asked:
					srv.ServeHTTP(w, r)
				case <-r.Context().Done():
				}
			}))))
			r := firstReplica(s)
			_, known, _ := r.Kept()
			require.False(t, known, "it has told nothing yet")
			close(asked)
			_, err := r.Ready(t.Context())
			require.NoError(t, err)
			got, known, current := r.Kept()
			require.Equal(t, !row.unknown, known)
			require.Equal(t, known, current)
			require.Equal(t, row.want, got)
		})
	}
}

// TestCopies_Matter: why copies of all samples matter.
func TestCopies_Matter(t *testing.T) {
	load := threeHours(`foo{instance="a"}`)
	archive := func(change func(*config.Group)) config.Group {
		g := recent(t, "archive", load)
		g.CopiesOf = []string{"eu"}
		if change != nil {
			change(&g)
		}
		require.NoError(t, g.Validate())
		return g
	}
	eu := groupOf("eu", backend(t, load))
	eu.Labels = map[string]string{"region": "eu"}
	ended := eu
	ended.TimeRange.MinAge = 1
	store := groupOf("eu", backend(t, load))
	store.Kind = "victoriametrics"
	for name, row := range map[string]struct {
		eu, archive config.Group
		selector    string
		want        string
	}{
		"they do not":             {eu, archive(nil), `foo`, ""},
		"a part of what it has":   {eu, archive(nil), `foo{region="eu"}`, ""},
		"nothing it has":          {eu, archive(nil), `foo{region="us"}`, "the selector concerns none of the groups that it has copies of"},
		"beside what it holds":    {eu, archive(func(g *config.Group) { g.Holds = []string{`{source="oneprom"}`} }), `foo`, ""},
		"a store of another kind": {store, archive(nil), `foo`, "keeps samples"},
		"it ends":                 {ended, archive(nil), `foo`, "its time_range ends"},
	} {
		t.Run(name, func(t *testing.T) {
			s, c, _ := loggedSet(t, row.eu, row.archive)
			c.ms.Store(3 * 3600_000)
			ready(t, s)
			v := s.View(t.Context())
			spans, why := v.CopiesMatter(v.Groups[len(v.Groups)-1], matchersOf(t, row.selector))
			require.NotEmpty(t, spans)
			if row.want == "" {
				require.Empty(t, why)
				require.Equal(t, int64(0), spans[0].To, fmt.Sprint(spans))
				return
			}
			require.Contains(t, why, row.want)
			require.Equal(t, int64(1<<63-1), spans[0].To)
		})
	}
}
