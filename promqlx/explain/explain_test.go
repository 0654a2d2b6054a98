package explain

import (
	"encoding/json"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

func TestExplanation_JSON(t *testing.T) {
	data, err := json.Marshal(stepsOf(transport.Steps{Start: 1000_000, End: 1120_000, Step: 60_000}))
	require.NoError(t, err)
	require.Equal(t, `{"start":1000,"end":1120,"step":60,"count":3}`, string(data))
	for ms, want := range map[int64]string{1001: "1.001", -1500: "-1.5", 0: "0", 1795378803812: "1795378803.812"} {
		data, err = json.Marshal(seconds(ms))
		require.NoError(t, err)
		require.Equal(t, want, string(data))
	}
}

// A sample counts once, however it is arrived at.
func TestTrace_CountsSamples(t *testing.T) {
	tr := NewTrace()
	f := tr.Fetch(nil, view.Selection{})
	samples := &dedup.Samples{}
	for t := range int64(9) {
		samples.Append(0, t, 1)
	}
	s := tracedSeries{dedup.NewSeries(labels.FromStrings("a", "b"), []dedup.Run{samples}, 0, 10, nil), f}
	it := s.Iterator(nil)
	it.Seek(0)
	it.Next()
	at := it.AtT()
	it.Seek(at)
	require.EqualValues(t, 2, f.samples.Load())
	s.Iterator(it).Next()
	require.EqualValues(t, 3, f.samples.Load())
}
