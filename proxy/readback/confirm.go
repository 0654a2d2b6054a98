package readback

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/proxy/config"
	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

const (
	// confirmEvery is how often a sample is looked for that could not be read back yet.
	confirmEvery = time.Minute
	// confirmWithin is how long writing a sample and reading it back may take until it is a finding.
	confirmWithin = 5 * time.Minute
)

// Confirmations find out, after a start and after a reload, whether what rules write can be read back
// through the server groups: a receiver that is none of them, or that changes labels, is not told by
// the configuration.
type Confirmations struct {
	storage storage.Queryable
	config  func() *config.Config
	logger  *slog.Logger

	mtx     sync.Mutex
	byGroup map[string]*confirmation // by key of the group
}

// confirmation is of one sample that a group of rules has written.
type confirmation struct {
	series  labels.Labels // with the external labels
	at      time.Time     // of the sample; zero: none is written yet
	asked   time.Time     // at the last evaluation that looked for it
	read    bool
	missing bool
}

// NewConfirmations returns confirmations of what is written with the configuration in use.
func NewConfirmations(s storage.Queryable, cfg func() *config.Config, l *slog.Logger) *Confirmations {
	return &Confirmations{storage: s, config: cfg, logger: l, byGroup: map[string]*confirmation{}}
}

// Anew begins to find out. It is for another configuration.
func (c *Confirmations) Anew() {
	c.mtx.Lock()
	defer c.mtx.Unlock()
	clear(c.byGroup)
}

// wrote takes in a sample that a group has written. The first one is looked for.
func (c *Confirmations) wrote(g *rules.Group, series labels.Labels, at time.Time) {
	b := labels.NewBuilder(series)
	c.config().Global.ExternalLabels.Range(func(l labels.Label) {
		if !series.Has(l.Name) {
			b.Set(l.Name, l.Value)
		}
	})
	c.mtx.Lock()
	defer c.mtx.Unlock()
	key := rules.GroupKey(g.File(), g.Name())
	if c.byGroup[key] == nil {
		c.byGroup[key] = &confirmation{series: b.Labels(), at: at, asked: at}
	}
}

// waits returns what is to be looked for after an evaluation of a group; nil for nothing.
func (c *Confirmations) waits(g *rules.Group, now time.Time) *confirmation {
	c.mtx.Lock()
	defer c.mtx.Unlock()
	w := c.byGroup[rules.GroupKey(g.File(), g.Name())]
	if w == nil || w.read || now.Sub(w.asked) < confirmEvery {
		return nil
	}
	w.asked = now
	return w
}

// Confirm looks for what a group has written, after an evaluation of it.
func (c *Confirmations) Confirm(ctx context.Context, g *rules.Group, now time.Time) {
	cfg := c.config()
	if len(cfg.RemoteWrite) == 0 || slices.ContainsFunc(cfg.RemoteWrite, changesLabels) {
		return // nothing is written, or nobody can tell as what
	}
	w := c.waits(g, now)
	if w == nil {
		return
	}
	found, err := readable(ctx, c.storage, w.series, w.at, now)
	if err != nil {
		c.logger.Debug("reading back what rules have written failed", "series", w.series.String(), "err", err)
		return // which says nothing about the receiver
	}
	c.mtx.Lock()
	said := w.missing
	w.read, w.missing = found, !found && now.Sub(w.at) >= confirmWithin
	missing := w.missing
	c.mtx.Unlock()
	if missing && !said {
		c.logger.Warn("finding", "finding", w.hidden(cfg).String())
	}
}

// readable reports whether a series has a sample from a time on. Server groups that do not answer are
// an error.
func readable(ctx context.Context, s storage.Queryable, series labels.Labels, from, to time.Time) (bool, error) {
	q, err := s.Querier(from.UnixMilli(), to.UnixMilli())
	if err != nil {
		return false, err
	}
	defer func() { _ = q.Close() }() // of a storage that holds nothing open
	var ms []*labels.Matcher
	series.Range(func(l labels.Label) { ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value)) })
	set := q.Select(ctx, false, nil, ms...)
	found := false
	for set.Next() {
		found = true
	}
	if err := set.Err(); err != nil || found {
		return found, err
	}
	return false, errorOf(set)
}

// errorOf returns the warnings of a set as an error.
func errorOf(set storage.SeriesSet) error {
	for _, w := range set.Warnings() {
		return w
	}
	return nil
}

// Hidden returns the findings about what could not be read back.
func (c *Confirmations) Hidden() (out []Hidden) {
	cfg := c.config()
	c.mtx.Lock()
	defer c.mtx.Unlock()
	for _, w := range c.byGroup {
		if w.missing {
			out = append(out, w.hidden(cfg))
		}
	}
	slices.SortFunc(out, func(a, b Hidden) int { return strings.Compare(a.Text, b.Text) })
	return out
}

func (w *confirmation) hidden(cfg *config.Config) Hidden {
	h := Hidden{Path: groupconfig.Path{"remote_write"}, Text: fmt.Sprintf("rules have written %s at %s, and no server group has it %s later: make what the receiver stores a server group, without changes of labels, or alerts begin their `for` anew at each restart; if it is one already, see whether prometheus_remote_storage_samples_failed_total grows",
		w.series, w.at.UTC().Format(time.RFC3339), confirmWithin)}
	for _, rw := range cfg.RemoteWrite {
		for _, g := range receiversOf(cfg, rw) {
			if !slices.Contains(h.Groups, g.Name) {
				h.Groups = append(h.Groups, g.Name)
			}
		}
	}
	return h
}

// Appender returns an appender of a group of rules that tells what it has written, once it has.
func (c *Confirmations) Appender(app storage.Appender, g *rules.Group) storage.Appender {
	return &confirmed{Appender: app, confirmations: c, group: g}
}

type confirmed struct {
	storage.Appender
	confirmations *Confirmations
	group         *rules.Group
	series        labels.Labels
	at            int64
}

// Append implements storage.Appender.
func (a *confirmed) Append(ref storage.SeriesRef, ls labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	ref, err := a.Appender.Append(ref, ls, t, v)
	if err == nil && a.series.IsEmpty() && !value.IsStaleNaN(v) {
		a.series, a.at = ls, t
	}
	return ref, err
}

// Commit implements storage.Appender.
func (a *confirmed) Commit() error {
	err := a.Appender.Commit()
	if err == nil && !a.series.IsEmpty() {
		a.confirmations.wrote(a.group, a.series, time.UnixMilli(a.at))
	}
	return err
}
