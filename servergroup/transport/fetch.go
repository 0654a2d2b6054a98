package transport

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
)

// Request is the samples that are wanted of a replica.
type Request struct {
	// Matchers are on labels that the backend has: not on injected ones.
	Matchers []*labels.Matcher
	// MinT and MaxT bound the samples (ms, inclusive).
	MinT, MaxT int64
	// Steps, if not nil, are the only instants at which the selector is evaluated, as an
	// instant vector: the query API then fetches less. Other methods ignore it.
	Steps *Steps
	// Func is the function that the samples are for, by its name in PromQL, as a hint for who reads the
	// request; "" is none. Methods other than remote read ignore it.
	Func string
	// SoleReplica reports whether no other replica is asked for these series: then only the samples
	// that the steps see are needed.
	SoleReplica bool
	// Labels turns the labels of a series as the backend has them into those that oneprom
	// shows. The argument is only valid during the call, and its names are not necessarily
	// sorted. The second result, the values of the replica labels, distinguishes series that
	// become equal by it.
	Labels func(raw []labels.Label) (labels.Labels, string)
	// NextResponse, unless it is nil, is called before the series of each response of remote
	// read: a fetch may need several.
	NextResponse func()
	// Charge is called with the number of bytes that are about to be held; its error ends the
	// fetch. It is called from one goroutine at a time.
	Charge func(bytes int) error
	// Warn is called with each warning of the backend, Inform with each info, which are
	// foreign text. Either may be nil.
	Warn, Inform func(text string)
}

// matchNothing returns the request of a probe, whose matchers no series has.
func matchNothing() Request {
	none := labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "oneprom_probe")
	return Request{
		Matchers: []*labels.Matcher{none}, MaxT: 1,
		Labels: func([]labels.Label) (labels.Labels, string) { return labels.EmptyLabels(), "" },
	}
}

// Steps are the instants Start, Start+Step, … <= End at which an instant selector is
// evaluated with the given Lookback, all in ms.
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

// Method is a way to fetch samples.
type Method string

// The methods, in order of preference.
const (
	StreamedRead Method = "remote_read_streamed"
	SamplesRead  Method = "remote_read_samples"
	ExportAPI    Method = "export_api" // of VictoriaMetrics
	QueryAPI     Method = "query_api"
)

// Fetch returns the series that r selects, by method m, in no particular order. It makes
// several requests where the backend refuses one as too large.
func (c *Client) Fetch(ctx context.Context, m Method, r Request) ([]Series, error) {
	switch m {
	case StreamedRead, SamplesRead:
		return inHalves(ctx, r, func(ctx context.Context, r Request) ([]Series, error) { return c.read(ctx, m, r) })
	case ExportAPI:
		return c.fetchReadable(ctx, r, func(ctx context.Context, r Request) ([]Series, error) { return inHalves(ctx, r, c.export) })
	case QueryAPI:
		return c.fetchReadable(ctx, r, c.query)
	}
	panic(fmt.Sprintf("BUG: unknown method %q", m))
}

// Selector prints matchers as a PromQL selector.
func Selector(ms []*labels.Matcher) string {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = m.String()
	}
	return "{" + strings.Join(texts, ",") + "}"
}
