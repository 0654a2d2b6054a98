package verify

import (
	"bytes"
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
)

// Answer is a response of the query API, with values kept as the text that was sent.
type Answer struct {
	Status    string   `json:"status"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings"`
	Infos     []string `json:"infos"`
	Data      struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	} `json:"data"`

	HTTPStatus int      `json:"-"`
	Series     []Series `json:"-"` // vectors and matrices
	Single     string   `json:"-"` // scalars and strings: the raw JSON
}

// Series is one element of a vector or matrix.
type Series struct {
	Name   string // canonical text of the labels
	Points []Point
}

// Point is a value, as the JSON text that was sent, at a time, as timeText writes it. A histogram's text is compacted.
type Point struct {
	T, V      string
	Histogram bool
}

// Float is the value of a point that is not a histogram.
func (p Point) Float() (float64, error) { return strconv.ParseFloat(strings.Trim(p.V, `"`), 64) }

// element is a series as it is sent.
type element struct {
	Metric     map[string]string    `json:"metric"`
	Value      *[2]json.RawMessage  `json:"value"`
	Histogram  *[2]json.RawMessage  `json:"histogram"`
	Values     [][2]json.RawMessage `json:"values"`
	Histograms [][2]json.RawMessage `json:"histograms"`
}

// maxBody bounds an answer, in bytes.
const maxBody = 64 << 20

// Ask posts a form to a server's API and decodes the answer. An API error is an answer; an error is returned for anything else.
func Ask(ctx context.Context, client *http.Client, base, path string, form url.Values) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(base, "/")+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxBody:
		return nil, fmt.Errorf("the answer has more than %d MiB", maxBody>>20)
	}
	return Parse(body, resp.StatusCode)
}

// Parse decodes an answer. An API error is an answer; an error is returned for anything else.
func Parse(body []byte, status int) (*Answer, error) {
	a := &Answer{HTTPStatus: status}
	if err := json.Unmarshal(body, a); err != nil {
		return nil, fmt.Errorf("status %d: %w: %.300s", status, err, body)
	}
	if a.Status != "success" {
		if a.Error == "" {
			return nil, fmt.Errorf("status %d without an error: %.300s", status, body)
		}
		return a, nil
	}
	return a, a.decode()
}

// decode fills Series or Single from the result.
func (a *Answer) decode() error {
	switch a.Data.ResultType {
	case "scalar", "string":
		a.Single = string(a.Data.Result)
		return nil
	case "vector", "matrix":
	default:
		return fmt.Errorf("unknown result type %q", a.Data.ResultType)
	}
	var elements []element
	if err := json.Unmarshal(a.Data.Result, &elements); err != nil {
		return err
	}
	for _, e := range elements {
		s := Series{Name: labelText(e.Metric)}
		if e.Value != nil {
			e.Values = append(e.Values, *e.Value)
		}
		if e.Histogram != nil {
			e.Histograms = append(e.Histograms, *e.Histogram)
		}
		for _, v := range e.Values {
			s.Points = append(s.Points, Point{T: timeText(v[0]), V: string(v[1])})
		}
		for _, v := range e.Histograms {
			var text bytes.Buffer
			if err := json.Compact(&text, v[1]); err != nil {
				return err
			}
			s.Points = append(s.Points, Point{T: timeText(v[0]), V: text.String(), Histogram: true})
		}
		if len(s.Points) == 0 {
			return errors.New("a series without points: " + s.Name)
		}
		a.Series = append(a.Series, s)
	}
	return nil
}

// labelText prints labels in a canonical way.
func labelText(l map[string]string) string {
	parts := make([]string, 0, len(l))
	for name, value := range l {
		parts = append(parts, fmt.Sprintf("%q=%q", name, value))
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, ",") + "}"
}

// timeText writes a time in one way, to the millisecond: 10 and 10.000 are the same.
func timeText(sent json.RawMessage) string {
	seconds, err := strconv.ParseFloat(string(sent), 64)
	if err != nil {
		return string(sent)
	}
	return strconv.FormatFloat(math.Round(seconds*1000)/1000, 'f', -1, 64)
}
