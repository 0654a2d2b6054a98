// Package survey asks the servers of the groups what they say of themselves: their rules,
// targets, metadata and statistics. What they say is merged to what one server would say.
package survey

import (
	"context"
	"errors"
	"math"
	"net/url"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Servers are those of the groups of a view. They are asked what they say of themselves: their
// rules, targets and statistics, which are merged to what one server would say.
type Servers struct{ view *view.View }

// Of returns the servers of a view.
func Of(v *view.View) Servers { return Servers{v} }

// statements are what the replicas of a group have told of themselves: those that have such a
// thing, in the order of the configuration.
type statements[T any] struct {
	*view.RoutedGroup
	by   []*replica.Replica
	data []T
}

// show returns the labels to show of what the group has.
func (s statements[T]) show() func(labels.Labels) labels.Labels {
	rules := labelmap.NewRules(s.Config, nil)
	return func(ls labels.Labels) labels.Labels {
		shown, _ := rules.ApplyTo(ls)
		return shown
	}
}

// survey asks every replica of the groups that may have what matches for what a path of
// the API says. A replica without it has told nothing, and nothing is missing; one that
// fails is missing as it is from a lookup. But that all groups are missing is no error
// unless an answer must not lack them: oneprom has rules and targets of its own to tell of.
//
// A request that is shown some series only is told nothing: see surveyByLabels.
func survey[T any](ctx context.Context, v *view.View, path string, ms []*labels.Matcher, params func(*view.RoutedGroup) url.Values) ([]statements[T], annotations.Annotations, error) {
	if v.Request.Restricted {
		return nil, nil, nil
	}
	return surveyByLabels[T](ctx, v, path, ms, params)
}

// surveyByLabels is survey for what has labels: who calls it leaves of the answer what the
// view shows.
func surveyByLabels[T any](ctx context.Context, v *view.View, path string, ms []*labels.Matcher, params func(*view.RoutedGroup) url.Values) ([]statements[T], annotations.Annotations, error) {
	ts := v.Route(ms, math.MinInt64, math.MaxInt64)
	answers := make([][]*T, len(ts))
	warnings := make([][][]string, len(ts))
	for i := range ts {
		answers[i], warnings[i] = make([]*T, len(ts[i].Replicas)), make([][]string, len(ts[i].Replicas))
	}
	outcomes, err := v.Each(ctx, ts, func(ctx context.Context, i, j int) error {
		t := &ts[i]
		p, err := t.Replicas[j].Ready(ctx)
		if err != nil {
			return err
		}
		data := new(T)
		has, ws, err := v.ClientOf(t.Config, p).GetOptional(ctx, path, params(t), v.Budget.Charge, data)
		if has {
			answers[i][j], warnings[i][j] = data, ws
		}
		return aside(err)
	})
	if err == nil {
		err = completeness.Ended(ctx, outcomes)
	}
	if err != nil {
		return nil, nil, err
	}
	now := v.Now.UnixMilli()
	for _, o := range outcomes {
		v.Ledger.RecordPartial(o, now, now)
	}
	v.Report()
	ws, err := completeness.Verdict(outcomes)
	if err != nil && completeness.AnyStrict(outcomes) {
		return nil, ws, err
	}
	var all []statements[T]
	for i := range ts {
		one := statements[T]{RoutedGroup: &ts[i]}
		for j, data := range answers[i] {
			if data != nil {
				one.by, one.data = append(one.by, ts[i].Replicas[j]), append(one.data, *data)
			}
			for _, w := range warnings[i][j] {
				if ts[i].Restricted() {
					w = completeness.Withheld
				}
				ws.Add(errors.New(w))
			}
		}
		all = append(all, one)
	}
	return all, ws, nil
}

// asideError is a failure that says nothing of whether a replica answers queries.
type asideError struct{ text string }

func (e asideError) Error() string { return e.text }

// aside keeps a replica's health out of what it answers to a survey: who may not see its
// targets, or cannot read them, may still have its series. That it does not answer at all,
// or has too much to do, is another matter.
func aside(err error) error {
	switch transport.ClassOf(err) {
	case "", transport.ClassTransport, transport.ClassLoad, transport.ClassCanceled:
		return err
	}
	return asideError{err.Error()}
}

// sending are the parameters of a survey that asks all replicas the same.
func sending(params url.Values) func(*view.RoutedGroup) url.Values {
	return func(*view.RoutedGroup) url.Values { return params }
}
