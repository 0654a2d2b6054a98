package transport

import (
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// A backend may hold label names that its parser cannot read: a Prometheus 2 reads only legacy names,
// but stores any that remote write brings. It refuses a selector with such a name. The names that it
// lists then tell what the selector would find.

// mayBeUnreadable reports whether the backend may be unable to read a label name in a selector.
func (d Dialect) mayBeUnreadable(name string) bool {
	return !d.Current && !model.LegacyValidation.IsValidLabelName(name) || d.reserves(name)
}

// reserves reports whether a matcher on a label name means something else to the backend.
func (d Dialect) reserves(name string) bool { return name != "" && name == d.ReservedName }

// cannotRead reports whether err, of a request with these matchers, may mean that the backend cannot
// read their names.
func (c *Client) cannotRead(ms []*labels.Matcher, err error) bool {
	return ClassOf(err) == ClassUser && slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return c.dialect.mayBeUnreadable(m.Name) })
}

// checkReserved fails if a matcher means something else to the backend.
func (c *Client) checkReserved(ms []*labels.Matcher) error {
	for _, m := range ms {
		if c.dialect.reserves(m.Name) {
			return &Error{Class: ClassUser, URL: c.URL(), Err: fmt.Errorf("the label name %q means something else there", m.Name)}
		}
	}
	return nil
}

// readable is a selector without the matchers whose names the backend cannot read.
type readable struct {
	send []*labels.Matcher
	// check are those of the other matchers whose names some series have.
	check []*labels.Matcher
	// empty reports whether no series matches.
	empty bool
}

// asReadable returns the selector of a lookup that was refused. It returns refused if it cannot know
// what the selector would find, or if the rest of it would find everything.
func (c *Client) asReadable(ctx context.Context, l Lookup, refused error) (readable, error) {
	var r readable
	selective, reserved := false, false
	for _, m := range l.Matchers {
		if c.dialect.mayBeUnreadable(m.Name) {
			reserved = reserved || c.dialect.reserves(m.Name)
			continue
		}
		r.send = append(r.send, m)
		selective = selective || !m.Matches("")
	}
	all := Lookup{MinT: l.MinT, MaxT: l.MaxT, Charge: l.Charge}
	if reserved { // a reserved name is listed with those of some series only
		if !selective {
			return readable{}, refused
		}
		all.Matchers = r.send
	}
	names, warnings, err := c.LabelNames(ctx, all)
	if err != nil || len(warnings) > 0 {
		return readable{}, refused
	}
	for _, m := range l.Matchers {
		switch {
		case !c.dialect.mayBeUnreadable(m.Name):
		case slices.Contains(names, m.Name):
			r.check = append(r.check, m)
		case !m.Matches(""):
			return readable{empty: true}, nil
		}
	}
	if !selective {
		return readable{}, refused
	}
	return r, nil
}

// fetchReadable fetches r by fetch, and checks here what the backend cannot read.
func (c *Client) fetchReadable(ctx context.Context, r Request, fetch func(context.Context, Request) ([]Series, error)) ([]Series, error) {
	err := c.checkReserved(r.Matchers)
	if err == nil {
		var list []Series
		if list, err = fetch(ctx, r); !c.cannotRead(r.Matchers, err) {
			return list, err
		}
	}
	left, err := c.asReadable(ctx, Lookup{Matchers: r.Matchers, MinT: r.MinT, MaxT: r.MaxT, Charge: r.Charge}, err)
	if err != nil || left.empty {
		return nil, err
	}
	r.Matchers = left.send
	list, err := fetch(ctx, r)
	return slices.DeleteFunc(list, func(s Series) bool { return !matchAll(left.check, s.Labels) }), err
}

// lookUpReadable looks l up by ask. If some series have a name that the backend cannot read, it looks
// up all the series, and of returns what they show.
func lookUpReadable[T any](ctx context.Context, c *Client, l Lookup, ask func(Lookup) ([]T, []string, error), of func([]labels.Labels) []T) ([]T, []string, error) {
	err := c.checkReserved(l.Matchers)
	if err == nil {
		var list []T
		var warnings []string
		if list, warnings, err = ask(l); !c.cannotRead(l.Matchers, err) {
			return list, warnings, err
		}
	}
	left, err := c.asReadable(ctx, l, err)
	if err != nil || left.empty {
		return nil, nil, err
	}
	l.Matchers = left.send
	if len(left.check) == 0 {
		return ask(l)
	}
	l.Limit = 0 // the backend would count series that do not match
	series, warnings, err := c.Series(ctx, l)
	return of(slices.DeleteFunc(series, func(ls labels.Labels) bool { return !matchAll(left.check, ls) })), warnings, err
}

// matchAll reports whether a series satisfies all matchers.
func matchAll(ms []*labels.Matcher, ls labels.Labels) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
}
