// Package findings keeps the mistakes in a group's configuration that answers have shown recently.
package findings

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// Recent are the findings of the last hour. It is safe for concurrent use.
type Recent struct {
	logger *slog.Logger

	mtx  sync.Mutex
	seen map[string]*finding // by the argument about of Add
}

type finding struct {
	text string
	last time.Time // when an answer showed it
}

const (
	// Age is how long a finding is listed after it was last seen.
	Age = time.Hour
	// mostKept bounds how many are kept.
	mostKept = 50
)

// New returns a list without findings, which logs each new finding as a warning.
func New(logger *slog.Logger) *Recent { return &Recent{logger: logger} }

// Add adds a finding. about identifies it, as texts of the same finding may give other examples.
func (f *Recent) Add(about, text string, now time.Time) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	if before := f.seen[about]; before != nil {
		if now.Sub(before.last) > Age {
			f.logger.Warn("finding", "finding", text)
			before.text = text
		}
		before.last = now
		return
	}
	if len(f.seen) >= mostKept {
		maps.DeleteFunc(f.seen, func(_ string, one *finding) bool { return now.Sub(one.last) > Age })
	}
	if len(f.seen) >= mostKept {
		return
	}
	if f.seen == nil {
		f.seen = map[string]*finding{}
	}
	f.logger.Warn("finding", "finding", text)
	f.seen[about] = &finding{text: text, last: now}
}

// List returns the findings of the last hour in alphabetical order.
func (f *Recent) List(now time.Time) []string {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	var texts []string
	for _, one := range f.seen {
		if now.Sub(one.last) <= Age {
			texts = append(texts, one.text)
		}
	}
	slices.Sort(texts)
	return texts
}

// Shorten cuts a text to 200 bytes, for an example.
func Shorten(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
