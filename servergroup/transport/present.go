package transport

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
)

// presentSteps is the most steps of which one value tells: a float64 holds all integers of 53 bits.
const presentSteps = 50

// nameLabel has the name of a series while the backend counts, as names get lost there.
const nameLabel = "__oneprom_name__"

// Present is a series.
type Present struct {
	// Labels are those of the series without its name. If the selector may find several names, the
	// name is that of another label.
	Labels labels.Labels
	// At has bit i%64 of element i/64 set if the series is there at step i.
	At []uint64
}

// PresentSeries returns which series a selector finds at the steps. One value of the answer tells of
// many steps, as at step i of them a series adds 2^i to it: that is as dear for the backend as to
// count the series, and the answer is short. The steps must be multiples of their distance, which is
// whole seconds. Of r it uses Labels and Charge. The backend must not be Fronted.
func (c *Client) PresentSeries(ctx context.Context, ms []*labels.Matcher, st Steps, r Request) ([]Present, error) {
	series := c.selector(ms)
	if nameOf(ms) == "" {
		series = fmt.Sprintf(`label_replace(%s, "%s", "$1", "__name__", "(.*)")`, series, nameLabel)
	}
	n := st.Count()
	values := (n + presentSteps - 1) / presentSteps
	each := (n + values - 1) / values // steps of one value
	// Half a step more or less: windows of Prometheus 2 are closed on the left.
	text := fmt.Sprintf("sum_over_time((group without () (%s) * 2 ^ ((time() - %d) / %d %% %d))[%dms:%dms])",
		series, st.Start/1000, st.Step/1000, each, each*st.Step-st.Step/2, st.Step)
	first := st.Start + (each-1)*st.Step
	list, err := c.Evaluate(ctx, text, Steps{Start: first, End: first + (values-1)*each*st.Step, Step: each * st.Step, Lookback: st.Lookback}, r)
	if err != nil {
		return nil, err
	}
	out := make([]Present, len(list))
	var samples dedup.Samples
	for i, s := range list {
		samples.Reset()
		if err := s.Run.AppendTo(&samples, first, first+values*each*st.Step); err != nil {
			return nil, err
		}
		out[i] = Present{Labels: s.Labels, At: make([]uint64, (n+63)/64)}
		for j, t := range samples.T {
			out[i].add((t-first)/st.Step, n, samples.F[j])
		}
	}
	return out, nil
}

// add adds the bits of a value, whose first one is of a step by number, to those of n steps.
func (p *Present) add(step, n int64, value float64) {
	if !(value >= 0 && value < 1<<53) {
		return // no backend sends that
	}
	for bits := uint64(value); bits != 0 && step < n; bits, step = bits>>1, step+1 {
		p.At[step/64] |= bits & 1 << (step % 64)
	}
}
