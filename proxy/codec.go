package proxy

import (
	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/promql"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// codec is upstream's JSON codec with room for the whole answer from the start.
// Upstream's lets its buffer grow and then copies it, which for an answer of
// millions of points takes three times its size.
type codec struct{ v1.JSONCodec }

const (
	// pointBytes is what one float of a matrix takes in JSON, about.
	pointBytes = 26
	// seriesBytes is what the labels of one series take, about.
	seriesBytes = 256
)

// Encode implements v1.Codec.
func (codec) Encode(resp *v1.Response) ([]byte, error) {
	size := 4 << 10
	if data, ok := resp.Data.(*v1.QueryData); ok {
		if m, ok := data.Result.(promql.Matrix); ok {
			for _, s := range m {
				size += seriesBytes + pointBytes*len(s.Floats)
			}
		}
	}
	stream := jsoniter.NewStream(jsoniter.ConfigCompatibleWithStandardLibrary, nil, size)
	stream.WriteVal(resp)
	return stream.Buffer(), stream.Error
}
