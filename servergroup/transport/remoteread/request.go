package remoteread

import (
	"fmt"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
)

// Request asks for the series that all Matchers select, with their samples of the window.
type Request struct {
	Matchers []*labels.Matcher
	// MinT and MaxT are the window (ms, inclusive).
	MinT, MaxT int64
	// Func is the function that the samples are for, as a hint; "" is none.
	Func string
	// Streamed reports whether a stream of chunks is preferred. Without it, samples are asked
	// for.
	Streamed bool
}

// Encode returns the body of the request: a ReadRequest, compressed by snappy.
func (r Request) Encode() ([]byte, error) {
	q := &prompb.Query{
		StartTimestampMs: r.MinT,
		EndTimestampMs:   r.MaxT,
		Hints:            &prompb.ReadHints{StartMs: r.MinT, EndMs: r.MaxT, Func: r.Func},
	}
	for _, lm := range r.Matchers {
		typ, ok := matcherTypes[lm.Type]
		if !ok {
			return nil, fmt.Errorf("BUG: unknown matcher type %v", lm.Type)
		}
		q.Matchers = append(q.Matchers, &prompb.LabelMatcher{Type: typ, Name: lm.Name, Value: lm.Value})
	}
	req := &prompb.ReadRequest{Queries: []*prompb.Query{q}}
	if r.Streamed {
		req.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES}
	}
	data, err := req.Marshal()
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, data), nil
}

var matcherTypes = map[labels.MatchType]prompb.LabelMatcher_Type{
	labels.MatchEqual:     prompb.LabelMatcher_EQ,
	labels.MatchNotEqual:  prompb.LabelMatcher_NEQ,
	labels.MatchRegexp:    prompb.LabelMatcher_RE,
	labels.MatchNotRegexp: prompb.LabelMatcher_NRE,
}
