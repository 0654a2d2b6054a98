package transport

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Engine is how a backend evaluates, as its flags and its answer to engineQuery show.
type Engine struct {
	// Known reports whether the backend has given one of the answers that a Prometheus gives.
	Known bool
	// LeftOpen reports whether windows leave out their first millisecond, as they do in
	// oneprom and since Prometheus 3. In Prometheus 2 they include it.
	LeftOpen bool
	// DotAll reports whether the dot of regular expressions matches line breaks, as it does
	// in oneprom and since Prometheus 3.
	DotAll bool
	// FlagsShown reports whether the backend shows its flags. Features is its flag
	// enable-feature.
	FlagsShown bool
	Features   string
}

// IsCurrent reports whether a backend reads selectors as oneprom does (Dialect.Current).
func (id Identity) IsCurrent() bool {
	return (id.Kind == Prometheus || id.Kind == Oneprom) && id.Engine.Known && id.Engine.LeftOpen && id.Engine.DotAll
}

// maxFeatures is the longest flag enable-feature that is believed (bytes).
const maxFeatures = 4 << 10

// engineQuery reads no series. The window has three steps of its subquery if it includes its
// first millisecond, else two. The series gets the label dot if a dot matches a line break.
const engineQuery = `count_over_time(label_replace(label_replace(vector(1), "oneprom_probe", "\n", "", ""), "dot", "1", "oneprom_probe", ".")[1m:30s])`

// The time of the only step of engineQuery (s) is no multiple of the step: front ends that move
// steps show themselves.
const (
	engineTime = 90
	engineStep = 60
)

// notBoolean is a value of the parameter dedup that Thanos refuses. Others do not know the
// parameter.
const notBoolean = "oneprom_probe"

// cacheHeaders are in the responses of caches: of those of HTTP, and of Trickster.
var cacheHeaders = []string{"Age", "X-Trickster-Result"}

// tryEngine finds out how a backend of a likely kind evaluates, and whether a server of another
// kind answers its queries.
func (c *Client) tryEngine(ctx context.Context, id Identity) (Identity, error) {
	resp, err := c.form(ctx, "/api/v1/query_range", url.Values{
		"query": {engineQuery}, "start": {strconv.Itoa(engineTime)}, "end": {strconv.Itoa(engineTime)}, "step": {strconv.Itoa(engineStep)},
		"dedup": {notBoolean},
	})
	var answer engineAnswer
	if err == nil {
		at := slices.IndexFunc(cacheHeaders, func(name string) bool { return resp.Header.Get(name) != "" })
		if at >= 0 {
			id.Front = "a cache answers its queries, which the header " + cacheHeaders[at] + " shows"
		}
		_, err = c.text(resp, nil, &answer)
	}
	switch {
	case refusesDedup(err) && id.Kind == UnknownKind:
		id.Kind = Thanos
		return id, nil
	case refusesDedup(err):
		id.Front = "a Thanos answers its queries"
	case Refused(err) || ClassOf(err) == ClassContent:
	case ClassOf(err) == ClassServer && id.Kind != UnknownKind: // its samples can be read all the same
	case err != nil:
		return Identity{}, err
	case answer.moved():
		id.Front = "steps of range queries are moved, as caching front ends do"
	}
	if id.Front != "" {
		id.Kind = UnknownKind
		return id, nil
	}
	answer.show(&id.Engine)
	return id, nil
}

// refusesDedup reports whether an error is the refusal of notBoolean.
func refusesDedup(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == ClassUser && strings.Contains(e.Err.Error(), "'dedup'")
}

// engineAnswer is an answer to engineQuery.
type engineAnswer struct {
	Result []struct {
		Metric map[string]string    `json:"metric"`
		Values [][2]json.RawMessage `json:"values"`
	} `json:"result"`
}

// series reports whether the answer is the one series that engineQuery has, with one value.
func (a engineAnswer) series() bool {
	return len(a.Result) == 1 && len(a.Result[0].Values) == 1 && a.Result[0].Metric["oneprom_probe"] == "\n"
}

// moved reports whether the value is at another time than was asked for.
func (a engineAnswer) moved() bool {
	if !a.series() {
		return false
	}
	t, err := strconv.ParseFloat(string(a.Result[0].Values[0][0]), 64)
	return err != nil || t != engineTime
}

// show records what the answer shows; nothing if it is one that no Prometheus gives.
func (a engineAnswer) show(e *Engine) {
	if !a.series() {
		return
	}
	count := string(a.Result[0].Values[0][1])
	e.Known = count == `"2"` || count == `"3"`
	e.LeftOpen = count == `"2"`
	e.DotAll = a.Result[0].Metric["dot"] == "1"
}
