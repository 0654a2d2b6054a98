package servergroup

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// findings are mistakes in a group's configuration that answers have shown.
type findings struct {
	logger *slog.Logger

	mtx  sync.Mutex
	seen map[string]*finding // by what they are about
}

type finding struct {
	text string
	last time.Time // when an answer showed it
}

const (
	// findingAge is how long a finding is told of after it was seen.
	findingAge = time.Hour
	// mostFindings bounds how many are kept.
	mostFindings = 50
)

// add notes a finding. about tells findings apart whose texts give examples.
func (f *findings) add(about, text string, now time.Time) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	if known := f.seen[about]; known != nil {
		if now.Sub(known.last) > findingAge {
			f.logger.Warn("finding", "finding", text)
			known.text = text
		}
		known.last = now
		return
	}
	if len(f.seen) >= mostFindings {
		maps.DeleteFunc(f.seen, func(_ string, one *finding) bool { return now.Sub(one.last) > findingAge })
	}
	if len(f.seen) >= mostFindings {
		return
	}
	if f.seen == nil {
		f.seen = map[string]*finding{}
	}
	f.logger.Warn("finding", "finding", text)
	f.seen[about] = &finding{text: text, last: now}
}

// list returns the findings of the last hour in alphabetical order.
func (f *findings) list(now time.Time) []string {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	var texts []string
	for _, one := range f.seen {
		if now.Sub(one.last) <= findingAge {
			texts = append(texts, one.text)
		}
	}
	slices.Sort(texts)
	return texts
}

// differentExternal tells of replicas of a group whose external labels are not the
// same, but for the replica labels: they may not be replicas.
func differentExternal(cfg *Config, replicas []*replica) []string {
	var texts []string
	var first *profile
	var firstURL string
	for _, r := range replicas {
		r.mtx.Lock()
		p := r.profile
		r.mtx.Unlock()
		if p == nil || p.configured == nil {
			continue
		}
		if first == nil {
			first, firstURL = p, r.url()
			continue
		}
		for _, name := range differing(first.configured, p.configured) {
			if slices.Contains(cfg.ReplicaLabels, name) {
				continue
			}
			texts = append(texts, fmt.Sprintf("external label %s is %q at %s and %q at %s: if both hold the same data, add it to `replica_labels`, else make them two groups",
				name, first.configured[name], firstURL, p.configured[name], r.url()))
		}
	}
	return texts
}

// differing returns the names of labels that are not the same in both, sorted.
func differing(a, b map[string]string) []string {
	var names []string
	for _, m := range []map[string]string{a, b} {
		for _, name := range sortedKeys(m) {
			if a[name] != b[name] && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
