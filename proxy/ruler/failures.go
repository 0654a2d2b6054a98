package ruler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/rules"

	"github.com/oneprom/oneprom/proxy/recorder"
)

// maxReason bounds the text of a failure, in bytes.
const maxReason = 1 << 10

// ruleName distinguishes rules as people do. Rules with the same name in a group are one.
type ruleName struct{ file, group, rule string }

// failure says of which server groups a rule could not be evaluated, and why.
type failure struct {
	without string // "" if it could not be evaluated at all
	reason  string
}

// failures are the rules whose last evaluation failed, or was not of all server groups.
type failures struct {
	mtx     sync.Mutex
	reasons map[string]map[ruleName]failure // by key of the group
}

func newFailures() *failures { return &failures{reasons: map[string]map[ruleName]failure{}} }

// set sets the failures of a group, and returns those from before.
func (f *failures) set(g *rules.Group, now map[ruleName]failure) (before map[ruleName]failure) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	key := rules.GroupKey(g.File(), g.Name())
	before = f.reasons[key]
	f.reasons[key] = now
	return before
}

// failed reports whether a rule could not be evaluated. One whose samples are not written could be.
func failed(rule rules.Rule) bool {
	err := rule.LastError()
	return err != nil && rule.Health() == rules.HealthBad && !errors.Is(err, recorder.ErrLost)
}

// note takes in how the evaluation of a group ended.
func (r *Ruler) note(g *rules.Group) {
	now := map[ruleName]failure{}
	for _, rule := range g.Rules() {
		name := ruleName{g.File(), g.Name(), rule.Name()}
		if failed(rule) {
			now[name] = failure{reason: clipped(rule.LastError().Error())}
			continue
		}
		gaps := r.evaluations.lacks(g, rule)
		if len(gaps) == 0 || now[name].reason != "" {
			continue
		}
		var reasons []string
		for _, gap := range gaps {
			reasons = append(reasons, gap.Reason)
		}
		f := failure{without: clipped(lackingNames(gaps)), reason: clipped(strings.Join(reasons, "; "))}
		now[name] = f
		rule.SetLastError(fmt.Errorf("not evaluated for %s: %s", f.without, f.reason)) // which the API shows
	}
	before := r.failures.set(g, now)
	logger := r.logger.With("component", "rule manager", "file", g.File(), "group", g.Name())
	for name, f := range now {
		switch was, known := before[name]; {
		case known && was.without == f.without:
		case f.without == "":
			logger.Warn("rule cannot be evaluated; this is not repeated until it can", "rule", name.rule, "err", f.reason)
		default:
			logger.Warn("rule is not evaluated for some server groups; this is not repeated until it is", "rule", name.rule, "without", f.without, "err", f.reason)
		}
	}
	for name := range before {
		if _, still := now[name]; !still {
			logger.Info("rule is evaluated again", "rule", name.rule)
		}
	}
}

// keep forgets the groups that are not there any more.
func (f *failures) keep(groups []*rules.Group) {
	there := map[string]bool{}
	for _, g := range groups {
		there[rules.GroupKey(g.File(), g.Name())] = true
	}
	f.mtx.Lock()
	defer f.mtx.Unlock()
	maps.DeleteFunc(f.reasons, func(key string, _ map[ruleName]failure) bool { return !there[key] })
}

// remind repeats the alerts that fire of rules whose evaluation failed. Upstream does so
// only after an evaluation, and Alertmanager takes an alert that nobody repeats for
// resolved. How often, and for how long they are good, is as upstream has it.
func (r *Ruler) remind(ctx context.Context, g *rules.Group, at time.Time) {
	delay := time.Duration(r.opts.ResendDelay)
	for _, rule := range g.Rules() {
		alerting, ok := rule.(*rules.AlertingRule)
		if !ok || !failed(rule) {
			continue
		}
		var again []*rules.Alert
		alerting.ForEachActiveAlert(func(a *rules.Alert) {
			if a.State != rules.StateFiring || a.LastSentAt.Add(delay).After(at) {
				return
			}
			a.LastSentAt, a.ValidUntil = at, at.Add(4*max(g.Interval(), delay))
			sent := *a
			sent.Labels = a.Labels.Copy() // the notifier changes them
			again = append(again, &sent)
		})
		r.notify(ctx, alerting.Query().String(), again...)
	}
}

// repeated is how upstream logs each evaluation that fails, or whose samples are not written.
var repeated = []string{"Evaluating rule failed", "Rule sample appending failed"}

// quietHandler is a handler for upstream's rule manager. What note and the recorder say once is at the
// level of debugging there, where it comes with each evaluation.
type quietHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	if slices.Contains(repeated, r.Message) {
		if !h.Enabled(ctx, slog.LevelDebug) {
			return nil
		}
		r.Level = slog.LevelDebug
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name)}
}

func clipped(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason] + "…"
	}
	return strings.ToValidUTF8(s, "")
}
