// Package exam puts questions to the truth and to a candidate, compares the answers to the last bit and keeps the score.
package exam

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Query is one query of a list.
type Query struct {
	Class, Text string
	Params      url.Values // further request parameters
}

// Queries reads a list of queries, one a line: "## name" opens a class, other lines that begin with # are comments, and a line may begin
// with request parameters: ?a=b&c=d query.
func Queries(path string) ([]Query, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []Query
	class := ""
	for line := range strings.Lines(string(file)) {
		line = strings.TrimSpace(line)
		name, isClass := strings.CutPrefix(line, "## ")
		switch {
		case isClass:
			class = name
			continue
		case line == "", strings.HasPrefix(line, "#"):
			continue
		}
		q := Query{Class: class, Text: line}
		if rest, ok := strings.CutPrefix(line, "?"); ok {
			params, text, _ := strings.Cut(rest, " ")
			if q.Params, err = url.ParseQuery(params); err != nil {
				return nil, fmt.Errorf("%s: the parameters of %q: %w", path, line, err)
			}
			q.Text = text
		}
		out = append(out, q)
	}
	return out, nil
}

// Evaluation is one moment, or one range, at which queries are asked.
type Evaluation struct {
	Name             string
	Start, End, Step int64 // unix ms and ms; step 0 means an instant query at Start
}

// Instant is the evaluation at one moment, in unix ms.
func Instant(name string, at int64) Evaluation {
	return Evaluation{Name: "instant " + name, Start: at}
}

// Range is the evaluation over a range, in unix ms.
func Range(name string, start, end int64, step time.Duration) Evaluation {
	return Evaluation{Name: fmt.Sprintf("range %s/%s", name, step), Start: start, End: end, Step: step.Milliseconds()}
}

// Path is the API path that answers the evaluation.
func (e Evaluation) Path() string {
	if e.Step == 0 {
		return "/api/v1/query"
	}
	return "/api/v1/query_range"
}

// Form is the body of the request for q at this evaluation.
func (e Evaluation) Form(q Query) url.Values {
	v := url.Values{"query": {q.Text}}
	maps.Copy(v, q.Params)
	if e.Step == 0 {
		v.Set("time", seconds(e.Start))
		return v
	}
	v.Set("start", seconds(e.Start))
	v.Set("end", seconds(e.End))
	v.Set("step", seconds(e.Step))
	return v
}

// seconds prints milliseconds as the API wants them: decimal seconds.
func seconds(ms int64) string {
	return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64)
}
