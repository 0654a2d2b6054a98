package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/oneprom/oneprom/dedup"
)

// tooMuchTexts matches the errors of backends for responses that would be too large. There is
// no code for that: each backend has its own texts.
var tooMuchTexts = regexp.MustCompile(`(?i)too many|too large|too big|exceed|limit|maximum|max[-_A-Z]`)

// tooSlow matches their errors for queries that took too long: a half would not have more
// time.
var tooSlow = regexp.MustCompile(`(?i)deadline exceeded|timeout exceeded|timed out`)

// tooMuch reports whether a backend refused a request as too large.
func tooMuch(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Class == ClassEvaluation || tooSlow.MatchString(e.Err.Error()) {
		return false
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge, http.StatusInternalServerError, http.StatusServiceUnavailable:
		return tooMuchTexts.MatchString(e.Err.Error())
	}
	return false
}

// shortestHalf is the length of the shortest halves of a window (ms).
const shortestHalf = 1000

// inHalves fetches the window of r by fetch, in halves if the backend refuses it as too large.
func inHalves(ctx context.Context, r Request, fetch func(context.Context, Request) ([]Series, error)) ([]Series, error) {
	list, err := fetch(ctx, r)
	if !tooMuch(err) || r.MaxT-r.MinT < 2*shortestHalf {
		return list, err
	}
	early, late := r, r
	early.MaxT = r.MinT + (r.MaxT-r.MinT)/2
	late.MinT = early.MaxT + 1
	return join(ctx, early, late, func(ctx context.Context, r Request) ([]Series, error) {
		list, err := inHalves(ctx, r, fetch)
		if err != nil {
			return nil, err
		}
		return list, toColumns(list, r)
	})
}

// toColumns decodes chunks and leaves out samples outside the window of r: a chunk across the
// end of a half is in the other half, too.
func toColumns(list []Series, r Request) error {
	for i, s := range list {
		if in, ok := s.Run.(*dedup.Samples); ok && (in.Len() == 0 || in.T[0] >= r.MinT && in.T[in.Len()-1] <= r.MaxT) {
			continue
		}
		run, err := decode(s, r)
		if err != nil {
			return err
		}
		list[i].Run = run
	}
	return nil
}

// decode returns the samples of a series in the window of r, and charges for them. It turns a panic into an error:
// upstream's iterators may panic at damaged chunks, and no engine recovers here.
func decode(s Series, r Request) (out *dedup.Samples, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("broken samples of %s: %v", s.Labels, p)
		}
	}()
	out = &dedup.Samples{}
	if err := s.Run.AppendTo(out, r.MinT, r.MaxT); err != nil || r.Charge == nil {
		return out, err
	}
	// One series in columns was charged when it was read. Columns have room to grow.
	return out, r.Charge(2 * dedup.ColumnBytes(out))
}

// joined fetches two requests, of which the second begins where the first ends, and joins
// their series. All runs are columns (*dedup.Samples).
func join(ctx context.Context, early, late Request, fetch func(context.Context, Request) ([]Series, error)) ([]Series, error) {
	list, err := fetch(ctx, early)
	if err != nil {
		return nil, err
	}
	more, err := fetch(ctx, late)
	if err != nil {
		return nil, err
	}
	at := make(map[seriesKey]int, len(list))
	for i, s := range list {
		at[keyOf(s)] = i
	}
	for _, s := range more {
		i, known := at[keyOf(s)]
		if !known {
			list = append(list, s)
			continue
		}
		if err := appendRun(list[i].Run, s.Run); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// appendRun appends the samples of late to early. Both are columns.
func appendRun(early, late dedup.Run) error {
	out, in := early.(*dedup.Samples), late.(*dedup.Samples)
	for i := range in.T {
		out.AppendFrom(in, i)
	}
	return out.Check()
}
