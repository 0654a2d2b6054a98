package grafana

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Frame is one series as a panel draws it: points, or heatmap cells when the
// answer held native histograms, even if it held floats too.
type Frame struct {
	Labels map[string]string
	Times  []int64   // ms since the epoch
	Values []float64 // one for each time; empty for heatmap cells
	Cells  []Cell
}

// Cell is one bucket of a native histogram at one time.
type Cell struct {
	Time              int64 // ms since the epoch
	Layout            int   // boundary code, 0 to 3
	Lower, Upper, Num float64
}

// Result is a parsed answer to a query.
type Result struct {
	Type    string // matrix, vector, scalar, string, or exemplar for an array
	Frames  []Frame
	Text    string   // the value, if Type is string
	Notices []string // warnings, then infos
}

type envelope struct {
	Status    json.RawMessage `json:"status"`
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
	Infos     []string        `json:"infos"`
}

// parse reads an answer body as strictly as the data source does. It fails on
// anything that is not JSON, on an error envelope (even under 200), on data that
// is neither object nor array, and on samples of another shape.
func parse(body []byte) (Result, error) {
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return Result{}, fmt.Errorf("response from prometheus couldn't be parsed. it is non-json: %w", err)
	}
	if string(e.Status) == `"error"` {
		return Result{}, fmt.Errorf("%s: %s", e.ErrorType, e.Error)
	}
	r, err := parseData(e.Data)
	r.Notices = append(e.Warnings, e.Infos...)
	return r, err
}

func parseData(data json.RawMessage) (Result, error) {
	if len(data) == 0 {
		return Result{}, errors.New("no data in the response")
	}
	switch data[0] {
	case '[':
		frames, err := parseExemplars(data)
		return Result{Type: "exemplar", Frames: frames}, err
	case '{':
	default:
		return Result{}, errors.New("expected object type")
	}
	var d struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return Result{}, err
	}
	r := Result{Type: d.ResultType}
	var err error
	switch d.ResultType {
	case "matrix", "vector":
		r.Frames, err = parseSeriesList(d.Result)
	case "scalar":
		var f Frame
		err = f.addPoint(d.Result)
		r.Frames = []Frame{f}
	case "string":
		r.Text, err = parseString(d.Result)
	default:
		err = fmt.Errorf("unknown result type: %s", d.ResultType)
	}
	return r, err
}

func parseSeriesList(result json.RawMessage) ([]Frame, error) {
	var list []struct {
		Metric     map[string]string `json:"metric"`
		Value      json.RawMessage   `json:"value"`
		Values     []json.RawMessage `json:"values"`
		Histogram  json.RawMessage   `json:"histogram"`
		Histograms []json.RawMessage `json:"histograms"`
	}
	if err := json.Unmarshal(result, &list); err != nil {
		return nil, err
	}
	frames := make([]Frame, 0, len(list))
	for _, s := range list {
		f := Frame{Labels: s.Metric}
		if s.Value != nil {
			s.Values = append(s.Values, s.Value)
		}
		if s.Histogram != nil {
			s.Histograms = append(s.Histograms, s.Histogram)
		}
		for _, v := range s.Values {
			if err := f.addPoint(v); err != nil {
				return nil, err
			}
		}
		for _, h := range s.Histograms {
			if err := f.addCells(h); err != nil {
				return nil, err
			}
		}
		if len(s.Histograms) > 0 {
			f.Times, f.Values = nil, nil
		}
		frames = append(frames, f)
	}
	return frames, nil
}

// addPoint adds [timestamp, "value"].
func (f *Frame) addPoint(raw json.RawMessage) error {
	ts, value, err := parsePair(raw)
	if err != nil {
		return err
	}
	v, err := parseQuoted(value)
	if err != nil {
		return err
	}
	f.Times, f.Values = append(f.Times, ts), append(f.Values, v)
	return nil
}

// addCells adds [timestamp, {count, sum, buckets}]; count and sum are not used.
func (f *Frame) addCells(raw json.RawMessage) error {
	ts, value, err := parsePair(raw)
	if err != nil {
		return err
	}
	var h struct {
		Buckets [][]json.RawMessage `json:"buckets"`
	}
	if err := json.Unmarshal(value, &h); err != nil {
		return err
	}
	for _, b := range h.Buckets {
		if len(b) != 4 {
			return fmt.Errorf("a bucket has %d elements, want 4", len(b))
		}
		c := Cell{Time: ts}
		if c.Layout, err = strconv.Atoi(string(b[0])); err != nil {
			return err
		}
		for i, number := range []*float64{&c.Lower, &c.Upper, &c.Num} {
			if *number, err = parseQuoted(b[i+1]); err != nil {
				return err
			}
		}
		f.Cells = append(f.Cells, c)
	}
	return nil
}

func parseExemplars(data json.RawMessage) ([]Frame, error) {
	var list []struct {
		SeriesLabels map[string]string `json:"seriesLabels"`
		Exemplars    []struct {
			Labels    map[string]string `json:"labels"`
			Value     json.RawMessage   `json:"value"`
			Timestamp json.Number       `json:"timestamp"`
		} `json:"exemplars"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	var frames []Frame
	for _, s := range list {
		f := Frame{Labels: s.SeriesLabels}
		for _, e := range s.Exemplars {
			v, err := parseQuoted(e.Value)
			if err != nil {
				return nil, err
			}
			ts, err := millis([]byte(e.Timestamp))
			if err != nil {
				return nil, err
			}
			f.Times, f.Values = append(f.Times, ts), append(f.Values, v)
		}
		frames = append(frames, f)
	}
	return frames, nil
}

func parseString(raw json.RawMessage) (string, error) {
	_, value, err := parsePair(raw)
	if err != nil {
		return "", err
	}
	var s string
	return s, json.Unmarshal(value, &s)
}

// parsePair splits [timestamp, value].
func parsePair(raw json.RawMessage) (ms int64, value json.RawMessage, err error) {
	var pair []json.RawMessage
	if err := json.Unmarshal(raw, &pair); err != nil {
		return 0, nil, err
	}
	if len(pair) != 2 {
		return 0, nil, fmt.Errorf("a sample has %d elements, want 2", len(pair))
	}
	ms, err = millis(pair[0])
	return ms, pair[1], err
}

// millis reads a timestamp, a JSON number of seconds, in the way Grafana does:
// through a float, cut off at the millisecond.
func millis(number []byte) (int64, error) {
	f, err := strconv.ParseFloat(string(number), 64)
	if err != nil {
		return 0, fmt.Errorf("timestamp %s: %w", number, err)
	}
	return int64(f * 1000), nil
}

// parseQuoted reads a float inside a JSON string; a bare number is refused.
func parseQuoted(raw json.RawMessage) (float64, error) {
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil || text == nil {
		return 0, fmt.Errorf("a sample value is not a JSON string: %s", raw)
	}
	return strconv.ParseFloat(*text, 64)
}
