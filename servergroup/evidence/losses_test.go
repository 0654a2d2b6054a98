package evidence

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/targets"
)

func TestLosses(t *testing.T) {
	life := lifetime.New()
	t.Cleanup(life.End)
	logger := slog.New(slog.DiscardHandler)
	reg := replica.NewRegistry(replica.RegistryOptions{Life: life, Now: time.Now, Logger: logger}, replica.NewMetrics(prometheus.NewRegistry()))
	var list []*replica.Replica
	for _, host := range []string{"a", "b"} {
		list = append(list, reg.NewReplica(replica.Group{Config: &config.DefaultGroup, Client: http.DefaultClient, Logger: logger}, targets.Endpoint{URL: &url.URL{Host: host}}))
	}
	a, b := list[0], list[1]
	begin := time.UnixMilli(0)
	var l Losses
	of := func(name string, from, to int64, now time.Time) [][]Span {
		lacking := make([][]Span, 2)
		l.addTo(lacking, list, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, name)}, from, to, now)
		return lacking
	}
	require.Equal(t, [][]Span{nil, nil}, of("m", 0, 100, begin))

	l.Add(a, 0, "m", []Span{{10, 20}, {15, 30}, {50, 60}}, begin)
	l.Add(b, 0, "n", []Span{{math.MinInt64, 5}, {90, math.MaxInt64}}, begin)
	require.Equal(t, [][]Span{{{10, 30}, {50, 60}}, nil}, of("m", 0, 100, begin))
	require.Equal(t, [][]Span{{{20, 30}, {50, 55}}, nil}, of("m", 20, 55, begin))
	require.Equal(t, [][]Span{nil, {{0, 5}, {90, 100}}}, of("n", 0, 100, begin))
	require.Equal(t, [][]Span{nil, nil}, of("o", 0, 100, begin))

	// Counts may have shown some of it.
	lacking := [][]Span{{{25, 40}}, nil}
	l.addTo(lacking, list, nil, 0, 100, begin)
	require.Equal(t, [][]Span{{{10, 40}, {50, 60}}, {{0, 5}, {90, 100}}}, lacking)

	// A generation that is over says nothing.
	l.Add(b, 1, "n", []Span{{10, 20}}, begin)
	require.Equal(t, [][]Span{nil, nil}, of("n", 0, 100, begin))

	// They age.
	l.Add(a, 0, "n", []Span{{10, 20}}, begin.Add(time.Hour))
	require.Equal(t, [][]Span{{{10, 30}, {50, 60}}, nil}, of("m", 0, 100, begin.Add(lossAge)))
	require.Equal(t, [][]Span{nil, nil}, of("m", 0, 100, begin.Add(lossAge+1)))
	require.Equal(t, [][]Span{{{10, 20}}, nil}, of("n", 0, 100, begin.Add(lossAge+1)))
}

// TestLosses_Bounded: what is too much is remembered as more than it is.
func TestLosses_Bounded(t *testing.T) {
	r := replica.Offline(&config.DefaultGroup, &url.URL{Host: "a"})
	var l Losses
	begin := time.UnixMilli(0)
	var many []Span
	for i := range int64(lossSpans + 1) {
		many = append(many, Span{10 * i, 10*i + 5})
	}
	l.Add(r, 0, "m", many, begin)
	require.Equal(t, []Span{{0, 10*lossSpans + 5}}, l.of[r].byName["m"].spans)
	for i := range 3 * keptLosses {
		l.Add(r, 0, fmt.Sprint("m", i), []Span{{int64(1000 * i), int64(1000*i + 1)}}, begin)
		require.LessOrEqual(t, len(l.of[r].byName), keptLosses)
		lacking := make([][]Span, 1)
		l.addTo(lacking, []*replica.Replica{r}, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "m0")}, 0, 1, begin)
		require.Equal(t, []Span{{0, 1}}, lacking[0])
	}
}
