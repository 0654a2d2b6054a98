package transport

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/transport/meter"
)

// typeExport is the content type of VictoriaMetrics' lines of JSON.
const typeExport = "application/stream+json"

// maxLine bounds a line of an export, which is a series or a part of one (bytes).
const maxLine = 256 << 20

// export fetches by the export API of VictoriaMetrics: every sample as it is stored,
// including stale markers, a series per line
// (https://docs.victoriametrics.com/victoriametrics/#how-to-export-data-in-json-line-format).
func (c *Client) export(ctx context.Context, r Request) ([]Series, error) {
	form := url.Values{
		"match[]": {c.selector(r.Matchers)},
		"start":   {formatTime(r.MinT)},
		"end":     {formatTime(r.MaxT)},
	}
	timeoutParam(ctx, form)
	resp, err := c.form(ctx, "/api/v1/export", form, typeExport)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	lines := exportLines{request: r, meter: meter.New(ctx, r.Charge), at: map[seriesKey]int{}}
	if err = lines.read(resp.Body); err == nil {
		err = lines.meter.Flush()
	}
	var broken *formatError
	switch {
	case err == nil:
		return lines.series, nil
	case errors.As(err, &broken):
		return nil, c.contentError(err)
	case lines.refused:
		return nil, &Error{Class: ClassUser, URL: c.URL(), Status: http.StatusUnprocessableEntity, Err: err}
	}
	return nil, c.bodyError(ctx, err)
}

// ProbeExport requests series that do not exist by the export API.
func (c *Client) ProbeExport(ctx context.Context) error {
	_, err := c.export(ctx, matchNothing())
	return err
}

// formatError is an export that is not in the format that its content type promises.
type formatError struct{ msg string }

func (e *formatError) Error() string { return e.msg }

// exportLines gathers the series of an export, which may have several lines each.
type exportLines struct {
	request Request
	meter   *meter.Meter
	series  []Series
	at      map[seriesKey]int // where in series it is
	raw     []labels.Label
	refused bool // the backend gave up

	length, object meter.Scratch // of the longest line, and labels
}

// What is made of an export, in bytes.
const (
	// exportSeries is what a series takes besides its labels and samples.
	exportSeries = 1024
	// exportLabels is what a byte of labels takes at most while they are decoded, and when they are
	// held: as they are shown, and twice to find the series again.
	exportLabels, exportCopies = 48, 3
	// exportSample is what a sample takes, in columns that may grow by the next line.
	exportSample = 48
)

func (e *exportLines) read(body io.Reader) error {
	br := bufio.NewReaderSize(body, 64<<10)
	var long []byte // a line longer than the buffer
	for {
		part, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if err := e.length.Use(e.meter, 3*len(long)); err != nil {
				return err
			}
			if long = append(long, part...); len(long) > maxLine {
				return &formatError{fmt.Sprintf("a line of more than %d bytes", maxLine)}
			}
			continue
		}
		if err != nil && err != io.EOF {
			return err
		}
		line := part
		if len(long) > 0 {
			long = append(long, part...)
			line = long
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if lerr := e.line(line); lerr != nil {
				return lerr
			}
		}
		if err == io.EOF {
			return nil
		}
		long = long[:0]
	}
}

// line reads `{"metric":{…},"values":[…],"timestamps":[…]}`. Older releases write numbers
// that are not JSON, so only the labels are decoded as JSON. The texts that separate the three
// cannot occur in a string, where quotes are escaped.
func (e *exportLines) line(text []byte) error {
	if text[0] != '{' {
		// A limit was exceeded while the response was being sent: it is incomplete.
		e.refused = true
		return errors.New(cmp.Or(firstLine(text), "refused without a reason"))
	}
	head, rest, ok := bytes.Cut(text, []byte(`,"values":[`))
	values, times, ok2 := bytes.Cut(rest, []byte(`],"timestamps":[`))
	object, ok3 := bytes.CutPrefix(head, []byte(`{"metric":`))
	times, ok4 := bytes.CutSuffix(times, []byte(`]}`))
	if !ok || !ok2 || !ok3 || !ok4 {
		return &formatError{"not a line of an export: " + firstLine(text[:min(len(text), 80)])}
	}
	if err := e.labels(object); err != nil {
		return err
	}
	run, err := e.samples(values, times)
	if err != nil || run.Len() == 0 {
		return err
	}
	s := Series{Run: run}
	s.Labels, s.Replica = e.request.Labels(e.raw)
	key := keyOf(s)
	i, known := e.at[key]
	if !known {
		e.at[key] = len(e.series)
		e.series = append(e.series, s)
		return nil
	}
	early := e.series[i].Run.(*dedup.Samples)
	if early.T[early.Len()-1] == run.T[0] { // a duplicate, as in samples
		run.T, run.F = run.T[1:], run.F[1:]
	}
	if err := appendRun(early, run); err != nil {
		return &formatError{err.Error()}
	}
	return nil
}

func (e *exportLines) labels(object []byte) error {
	if err := e.object.Use(e.meter, exportLabels*len(object)); err != nil {
		return err
	}
	if err := e.meter.Keep(exportSeries + exportCopies*len(object)); err != nil {
		return err
	}
	var metric map[string]string
	if err := json.Unmarshal(object, &metric); err != nil {
		return &formatError{"labels in a line of an export: " + clip(err.Error())}
	}
	e.raw = e.raw[:0]
	for name, value := range metric {
		e.raw = append(e.raw, labels.Label{Name: name, Value: value})
	}
	// Sorted, so that the dropped labels make the same Series.Replica in every response.
	slices.SortFunc(e.raw, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// samples reads the lists of a line. A timestamp that was written twice may come twice: the
// first sample counts, as it does in Prometheus.
func (e *exportLines) samples(values, times []byte) (*dedup.Samples, error) {
	n := bytes.Count(times, []byte(",")) + 1
	if err := e.meter.Keep(exportSample * n); err != nil {
		return nil, err
	}
	out := &dedup.Samples{T: make([]int64, 0, n), F: make([]float64, 0, n)}
	last, first := int64(0), true
	for len(values) > 0 && len(times) > 0 {
		if err := e.meter.Pass(1); err != nil {
			return nil, err
		}
		var value, stamp []byte
		value, values, _ = bytes.Cut(values, []byte(","))
		stamp, times, _ = bytes.Cut(times, []byte(","))
		f, err := exportValue(value)
		if err != nil {
			return nil, &formatError{"value in a line of an export: " + clip(err.Error())}
		}
		t, err := strconv.ParseInt(string(stamp), 10, 64)
		if err != nil {
			return nil, &formatError{"timestamp in a line of an export: " + clip(err.Error())}
		}
		if !first && t < last {
			return nil, &formatError{fmt.Sprintf("samples out of order in an export: one at %d ms after one at %d ms", t, last)}
		}
		if again := !first && t == last; !again && t >= e.request.MinT && t <= e.request.MaxT {
			out.Append(0, t, f)
		}
		last, first = t, false
	}
	if len(values) != len(times) {
		return nil, &formatError{"more values than timestamps, or fewer, in a line of an export"}
	}
	return out, nil
}

// exportValue reads a number. A stale marker is null, or NaN as the first value: no other NaN
// is stored.
func exportValue(text []byte) (float64, error) {
	switch string(text) {
	case "null", "NaN", `"NaN"`:
		return dedup.StaleNaN, nil
	case "+Inf", `"Infinity"`, `"+Inf"`:
		return math.Inf(1), nil
	case "-Inf", `"-Infinity"`, `"-Inf"`:
		return math.Inf(-1), nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
		err = fmt.Errorf("%q", text) // strconv accepts "infinity", for example
	}
	return f, err
}
