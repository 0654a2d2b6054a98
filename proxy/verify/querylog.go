package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// A logLine is a line of the query log of Prometheus, which has params, or of oneprom.
type logLine struct {
	Params *struct {
		Query string    `json:"query"`
		Start time.Time `json:"start"`
		End   time.Time `json:"end"`
		Step  float64   `json:"step"` // seconds
	} `json:"params"`

	Query string   `json:"query"`
	Start *float64 `json:"start"` // seconds since 1970
	End   *float64 `json:"end"`
	Step  float64  `json:"step"`
}

// queryLog reads a query log. Queries are asked for the time at which they were asked, unless the window overrides it.
func queryLog(data []byte, path string, w window) (found []Question, skipped []Skip) {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		from := fmt.Sprintf("%s:%d", path, n)
		q, err := logged(line)
		switch {
		case err != nil:
			skipped = append(skipped, Skip{from, err.Error()})
			continue
		case w.override || w.instant:
			q = w.question(q.Query, from, q.Step == 0)
		}
		q.From = from
		found = append(found, q)
	}
	return found, skipped
}

// logged reads a line.
func logged(line []byte) (Question, error) {
	var l logLine
	if err := json.Unmarshal(line, &l); err != nil {
		return Question{}, fmt.Errorf("not a line of a query log: %w", err)
	}
	var q Question
	switch {
	case l.Params != nil:
		q = Question{Query: l.Params.Query, Start: l.Params.Start, End: l.Params.End}
		l.Step = l.Params.Step
	case l.Start != nil && l.End != nil:
		q = Question{Query: l.Query, Start: timeOf(*l.Start), End: timeOf(*l.End)}
	}
	switch {
	case q.Query == "":
		return Question{}, errors.New("a line without a query")
	case q.End.IsZero() || q.Start.After(q.End) || !(l.Step >= 0 && l.Step < math.MaxInt32):
		return Question{}, errors.New("a query without a time")
	}
	q.Step = time.Duration(math.Round(l.Step*1000)) * time.Millisecond
	return q, nil
}

// timeOf is a time in seconds since 1970, or none if there is no such time.
func timeOf(seconds float64) time.Time {
	if !(math.Abs(seconds) < 60e9) {
		return time.Time{}
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000)))
}
