// Package survey asks the servers of the groups about themselves: for their rules, targets,
// metadata and statistics. It merges their answers to one, as one server would give it.
package survey

import (
	"context"
	"errors"
	"net/url"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Servers are the servers of the groups of a view.
type Servers struct{ view *view.View }

// Of returns the servers of a view.
func Of(v *view.View) Servers { return Servers{v} }

// groupAnswers are the answers of the replicas of a group that have the endpoint, in the order of
// the replicas.
type groupAnswers[T any] struct {
	*view.RoutedGroup
	by   []*replica.Replica
	data []T
}

// show returns a function that turns labels of the group's servers into those to show.
func (s groupAnswers[T]) show() func(labels.Labels) labels.Labels {
	rules := labelmap.NewRules(s.Config, nil)
	return func(ls labels.Labels) labels.Labels {
		shown, _ := rules.ApplyTo(ls)
		return shown
	}
}

// survey asks every replica of the groups that may have series of ms for a path of the API. Nothing
// is missing from the answer if a replica does not have the endpoint; a replica that fails is
// missing as it is from a lookup. But it is no error if all groups are missing, unless an answer
// must not be partial: oneprom has rules and targets of its own to show.
//
// The answer is empty for restricted requests, which must use surveyByLabels.
func survey[T any](ctx context.Context, v *view.View, path string, ms []*labels.Matcher, params func(*view.RoutedGroup) url.Values) ([]groupAnswers[T], annotations.Annotations, error) {
	if v.Request.Restricted {
		return nil, nil, nil
	}
	return surveyByLabels[T](ctx, v, path, ms, params)
}

// surveyByLabels is survey for answers with labels. Its caller must remove from the answer what the
// view does not show (View.Shows).
func surveyByLabels[T any](ctx context.Context, v *view.View, path string, ms []*labels.Matcher, params func(*view.RoutedGroup) url.Values) ([]groupAnswers[T], annotations.Annotations, error) {
	ts := v.RouteServers(ms)
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
		answer := v.Answer(t.Group, t.Replicas[j])
		defer answer.End()
		data := new(T)
		supported, ws, err := v.ClientOf(t.Config, p).GetOptional(ctx, path, params(t), answer.Charge, data)
		if supported {
			answers[i][j], warnings[i][j] = data, ws
		}
		return unrelated(err)
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
	var all []groupAnswers[T]
	for i := range ts {
		one := groupAnswers[T]{RoutedGroup: &ts[i]}
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

// unrelatedError is a failure that does not show whether a replica answers queries.
type unrelatedError struct{ text string }

func (e unrelatedError) Error() string { return e.text }

// unrelated makes a failure count not as one of the replica: its series may be readable where its
// targets are not. Failures to answer at all, or because of load, still count.
func unrelated(err error) error {
	switch transport.ClassOf(err) {
	case "", transport.ClassTransport, transport.ClassLoad, transport.ClassCanceled:
		return err
	}
	return unrelatedError{err.Error()}
}

// sending returns the parameters of a survey that asks all replicas with the same ones.
func sending(params url.Values) func(*view.RoutedGroup) url.Values {
	return func(*view.RoutedGroup) url.Values { return params }
}
