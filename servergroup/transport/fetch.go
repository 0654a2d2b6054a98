package transport

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
)

// Request says which samples are wanted of a replica.
type Request struct {
	// Matchers are those that the backend can answer: no injected labels.
	Matchers []*labels.Matcher
	// MinT and MaxT bound the samples (ms, inclusive).
	MinT, MaxT int64
	// Steps, if set, are the only instants at which the selector is looked at,
	// as an instant vector; the query API then fetches less. Other transports
	// ignore it.
	Steps *Steps
	// Alone tells that no other replica is asked for these series, so that only
	// what the steps see is needed of them, not every sample.
	Alone bool
	// Labels turns the labels of a series as the backend has them into the
	// oneprom's own; the argument is only valid during the call, its names are
	// not necessarily sorted. The second result tells series apart that become
	// equal by it (the values of the replica labels).
	Labels func(raw []labels.Label) (labels.Labels, string)
	// Charge is told the bytes that are about to be held; its error ends the
	// fetch. It is called from one goroutine at a time.
	Charge func(bytes int) error
	// Warn is told the warnings of the backend, Inform its infos; nil does not want
	// them. They are foreign text.
	Warn, Inform func(text string)
}

// nothing is the request of a probe, which no series answers.
func nothing() Request {
	none := labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "oneprom_probe")
	return Request{
		Matchers: []*labels.Matcher{none}, MaxT: 1,
		Labels: func([]labels.Label) (labels.Labels, string) { return labels.EmptyLabels(), "" },
	}
}

// Steps are the instants Start, Start+Step, … <= End (ms) at which an instant
// selector is evaluated, looking back Lookback ms.
type Steps struct {
	Start, End, Step, Lookback int64
}

// Count returns the number of instants.
func (s Steps) Count() int64 { return (s.End-s.Start)/s.Step + 1 }

// Series is one series of one replica.
type Series struct {
	Labels labels.Labels
	// Replica is what Request.Labels gave as its second result.
	Replica string
	Run     dedup.Run
}

// Method is a way of fetching samples.
type Method string

// The methods, in order of preference.
const (
	StreamedRead Method = "remote_read_streamed"
	SamplesRead  Method = "remote_read_samples"
	ExportAPI    Method = "export_api" // of VictoriaMetrics
	QueryAPI     Method = "query_api"
)

// Fetch returns the series that r asks for, by method m, in several requests
// where the backend finds one too much. Their order is not determined.
func (c *Client) Fetch(ctx context.Context, m Method, r Request) ([]Series, error) {
	switch m {
	case StreamedRead, SamplesRead:
		return inPieces(ctx, r, func(ctx context.Context, r Request) ([]Series, error) { return c.read(ctx, m, r) })
	case ExportAPI:
		return inPieces(ctx, r, c.export)
	case QueryAPI:
		return c.query(ctx, r)
	}
	panic(fmt.Sprintf("BUG: unknown method %q", m))
}

// Selector prints matchers as PromQL.
func Selector(ms []*labels.Matcher) string {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = m.String()
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// selector prints matchers as the backend reads them.
func (c *Client) selector(ms []*labels.Matcher) string {
	if !c.dialect.EscapedNames {
		return Selector(ms)
	}
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = escapeMetricsQL(m.Name) + m.Type.String() + strconv.Quote(m.Value)
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// escapeMetricsQL puts a backslash before what cannot be in a name.
func escapeMetricsQL(name string) string {
	var b strings.Builder
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') && r < utf8.RuneSelf {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
