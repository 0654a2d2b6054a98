package transport

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
)

// influx is an InfluxDB as far as Prometheus sees it: remote read in samples, whose regular expressions search within
// values, and 404 to all else.
type influx struct {
	series []labels.Labels // each has a sample every minute of the first hour
	last   *prompb.Query
	other  []string // paths that it does not have
}

func (db *influx) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Influxdb-Version", "1.6.7~rc0")
	if r.URL.Path != "/api/v1/prom/read" {
		db.other = append(db.other, r.URL.Path)
		http.NotFound(w, r)
		return
	}
	compressed, _ := io.ReadAll(r.Body)
	raw, err := snappy.Decode(nil, compressed)
	var req prompb.ReadRequest
	if err == nil {
		err = req.Unmarshal(raw)
	}
	if err == nil {
		raw, err = db.read(req.Queries[0])
	}
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Header().Set("Content-Encoding", "snappy")
	_, _ = w.Write(snappy.Encode(nil, raw))
}

func (db *influx) read(q *prompb.Query) ([]byte, error) {
	db.last = q
	if len(q.Matchers) == 0 {
		return nil, refusal(400, "expected matcher").(*Error).Err
	}
	if q.StartTimestampMs < math.MinInt64/1_000_000 || q.EndTimestampMs > math.MaxInt64/1_000_000 {
		return nil, refusal(400, "time outside range").(*Error).Err
	}
	result := &prompb.QueryResult{}
	for _, ls := range db.series {
		keep := true
		for _, m := range q.Matchers {
			v := ls.Get(m.Name)
			switch m.Type {
			case prompb.LabelMatcher_EQ:
				keep = keep && v == m.Value
			case prompb.LabelMatcher_NEQ:
				keep = keep && v != m.Value
			default:
				re, err := regexp.Compile(m.Value)
				if err != nil {
					return nil, err
				}
				keep = keep && re.MatchString(v) == (m.Type == prompb.LabelMatcher_RE)
			}
		}
		ts := &prompb.TimeSeries{}
		for t := int64(0); t < 3600_000; t += 60_000 {
			if t >= q.StartTimestampMs && t <= q.EndTimestampMs {
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: t, Value: 1})
			}
		}
		if !keep || len(ts.Samples) == 0 {
			continue
		}
		ls.Range(func(l labels.Label) { ts.Labels = append(ts.Labels, prompb.Label{Name: l.Name, Value: l.Value}) })
		result.Timeseries = append(result.Timeseries, ts)
	}
	return (&prompb.ReadResponse{Results: []*prompb.QueryResult{result}}).Marshal()
}

// influxOf serves series, each a list of name and value.
func influxOf(t *testing.T, series ...[]string) (*influx, *Client) {
	t.Helper()
	db := &influx{}
	for _, s := range series {
		db.series = append(db.series, labels.FromStrings(s...))
	}
	c := served(t, db.ServeHTTP)
	id, err := c.Identify(t.Context())
	require.NoError(t, err)
	require.Equal(t, InfluxDB, id.Kind)
	db.other = nil
	return db, c.As(DialectOf(InfluxDB, false))
}

func match(typ labels.MatchType, name, value string) *labels.Matcher {
	return labels.MustNewMatcher(typ, name, value)
}

// theFour hold values in which other values are found.
var theFour = [][]string{
	{"__name__", "m", "h", "b"}, {"__name__", "m", "h", "abc"}, {"__name__", "ms", "h", "b\nb", "z", "1"}, {"__name__", "v.m"},
}

func TestInflux_RegularExpressionsMatchWholeValues(t *testing.T) {
	db, c := influxOf(t, theFour...)
	for _, re := range []string{"b", "a|b", "|b", ".*", ".+", "b.b", "(?i)B", "a(?:b|x)c", "", "^b$", "b|abc", `b\nb`} {
		for _, typ := range []labels.MatchType{labels.MatchRegexp, labels.MatchNotRegexp} {
			for _, name := range []string{"h", "__name__", "z", "none"} {
				ms := []*labels.Matcher{match(labels.MatchNotEqual, "__name__", "x"), match(typ, name, re)}
				var want []string
				for _, s := range db.series {
					if ms[1].Matches(s.Get(name)) {
						want = append(want, s.String())
					}
				}
				list, err := c.Fetch(t.Context(), SamplesRead, Request{Matchers: ms, MinT: 0, MaxT: 1, Labels: unchanged})
				require.NoError(t, err)
				var got []string
				for _, s := range list {
					got = append(got, s.Labels.String())
				}
				require.Equal(t, want, got, ms[1])
				require.Equal(t, re, ms[1].Value, "the query's own matchers are not touched")
			}
		}
	}
}

func TestInflux_LookupsRead(t *testing.T) {
	db, c := influxOf(t, theFour...)
	ctx := t.Context()
	all := Lookup{MinT: math.MinInt64, MaxT: math.MaxInt64}
	names, ws, err := c.LabelNames(ctx, all)
	require.NoError(t, err)
	require.Empty(t, ws)
	require.Equal(t, []string{"__name__", "h", "z"}, names)

	f := func(want []string, name string, l Lookup) {
		t.Helper()
		got, _, err := c.LabelValues(ctx, name, l)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	of := func(ms ...*labels.Matcher) Lookup { return Lookup{Matchers: ms, MinT: 0, MaxT: 60_000} }
	f([]string{"m", "ms", "v.m"}, "__name__", all)
	f([]string{"abc", "b", "b\nb"}, "h", all)
	f([]string{"abc", "b"}, "h", of(match(labels.MatchEqual, "__name__", "m")))
	f([]string{"b"}, "h", of(match(labels.MatchRegexp, "h", "b")))
	f([]string{"v.m"}, "__name__", of(match(labels.MatchEqual, "h", "")))
	f(nil, "none", all)
	f(nil, "h", Lookup{MinT: 3600_000, MaxT: 7200_000})

	series, _, err := c.Series(ctx, of(match(labels.MatchNotRegexp, "h", "b")))
	require.NoError(t, err)
	slices.SortFunc(series, labels.Compare)
	require.Equal(t, []labels.Labels{labels.FromStrings("__name__", "m", "h", "abc"), labels.FromStrings("__name__", "ms", "h", "b\nb", "z", "1"), labels.FromStrings("__name__", "v.m")}, series)
	require.Empty(t, db.other, "paths that it does not have are not asked for")
}

func TestInflux_WhatItDoesNotHaveIsEmpty(t *testing.T) {
	db, c := influxOf(t, theFour...)
	var exemplars, metadata any
	ws, err := c.Exemplars(t.Context(), Lookup{MaxT: 1}, &exemplars)
	require.NoError(t, err)
	require.Empty(t, ws)
	require.Nil(t, exemplars)
	ws, err = c.Metadata(t.Context(), "", nil, &metadata)
	require.NoError(t, err)
	require.Empty(t, ws)
	require.Nil(t, metadata)
	require.Empty(t, db.other)
}

func TestInflux_ProbeAndPath(t *testing.T) {
	db, c := influxOf(t)
	m, err := c.ProbeRead(t.Context())
	require.NoError(t, err)
	require.Equal(t, SamplesRead, m)
	list, err := c.Fetch(t.Context(), SamplesRead, Request{Matchers: []*labels.Matcher{match(labels.MatchEqual, "a", "b")}, MinT: 1, MaxT: 2, Labels: unchanged})
	require.NoError(t, err)
	require.Empty(t, list)
	require.Equal(t, "1 2", strconv.FormatInt(db.last.StartTimestampMs, 10)+" "+strconv.FormatInt(db.last.EndTimestampMs, 10))

	// A path that is configured is kept.
	own := *c
	own.ReadPath = "/else"
	require.Equal(t, "/else", own.As(DialectOf(InfluxDB, false)).ReadPath)
}

// TestInflux_LookupsAreCharged: they read samples.
func TestInflux_LookupsAreCharged(t *testing.T) {
	_, c := influxOf(t, theFour...)
	l := Lookup{MaxT: 3600_000, Charge: func(int) error { return overBudget{} }}
	_, _, err := c.LabelNames(t.Context(), l)
	require.ErrorIs(t, err, overBudget{})
	_, _, err = c.Series(t.Context(), l)
	require.ErrorIs(t, err, overBudget{})
}
