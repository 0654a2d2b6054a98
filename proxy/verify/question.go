package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// maxSource bounds a file with queries, in bytes.
const maxSource = 256 << 20

// A Question is a query that both servers are asked, over a range or, if Step is 0, at End.
type Question struct {
	Query      string
	Start, End time.Time
	Step       time.Duration
	From       string // where it was found: file:line, or file and panel
}

// A Skip is something of a file that is no question.
type Skip struct{ From, Why string }

func (q Question) path() string {
	if q.Step == 0 {
		return "/api/v1/query"
	}
	return "/api/v1/query_range"
}

func (q Question) form() url.Values {
	form := url.Values{"query": {q.Query}}
	if q.Step == 0 {
		form.Set("time", secondsText(q.End))
		return form
	}
	form.Set("start", secondsText(q.Start))
	form.Set("end", secondsText(q.End))
	form.Set("step", strconv.FormatFloat(q.Step.Seconds(), 'f', -1, 64))
	return form
}

func secondsText(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

// when says for when a question is asked.
func (q Question) when() string {
	if q.Step == 0 {
		return "at " + q.End.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("from %s to %s each %s", q.Start.UTC().Format(time.RFC3339Nano), q.End.UTC().Format(time.RFC3339Nano), model.Duration(q.Step))
}

// window is for when questions are asked that do not say it, or are not to.
type window struct {
	start, end time.Time
	step       time.Duration
	instant    bool
	override   bool // what a query log says of the time does not count
}

// question makes a question for the window. What has no range, as a range vector or a string, is asked at its end.
func (w window) question(query, from string, instant bool) Question {
	q := Question{Query: query, Start: w.start, End: w.end, Step: w.step, From: from}
	if expr, err := parse(query); err == nil {
		t := expr.Type()
		instant = instant || t == parser.ValueTypeMatrix || t == parser.ValueTypeString
	}
	if instant || w.instant {
		q.Start, q.Step = w.end, 0
	}
	return q
}

// readSources reads files with queries: query logs, dashboards, and lists of queries. Each question is there once.
func readSources(paths []string, w window) (questions []Question, skipped []Skip, err error) {
	seen := map[string]bool{}
	for _, path := range paths {
		data, err := readSource(path)
		if err != nil {
			return nil, nil, err
		}
		var found []Question
		var skips []Skip
		switch {
		case isDashboard(data):
			found, skips, err = dashboard(data, path, w)
		case isLog(data):
			found, skips = queryLog(data, path, w)
		default:
			found = queryList(data, path, w)
		}
		if err != nil {
			return nil, nil, err
		}
		skipped = append(skipped, skips...)
		for _, q := range found {
			if key := q.path() + "?" + q.form().Encode(); !seen[key] {
				seen[key] = true
				questions = append(questions, q)
			}
		}
	}
	return questions, skipped, nil
}

func readSource(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxSource:
		return nil, fmt.Errorf("%s: more than %d MiB: give a part of it", path, maxSource>>20)
	}
	return data, nil
}

// isLog reports whether text is a query log: its first lines, or one of them if they were cut, are JSON.
func isLog(data []byte) bool {
	const enough = 10
	n := 0
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if line[0] == '{' && json.Valid(line) {
			return true
		}
		if n++; n == enough {
			break
		}
	}
	return false
}

// queryList reads a list of queries, one a line. Lines that begin with # are comments.
func queryList(data []byte, path string, w window) []Question {
	var found []Question
	n := 0
	for line := range bytes.Lines(data) {
		n++
		query := strings.TrimSpace(string(line))
		if query != "" && !strings.HasPrefix(query, "#") {
			found = append(found, w.question(query, fmt.Sprintf("%s:%d", path, n), false))
		}
	}
	return found
}
