package targets

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/prometheus/discovery/targetgroup"

	"github.com/oneprom/oneprom/servergroup/config"
)

// A Shard is the targets of one group: those whose group_by labels have the same values.
type Shard struct {
	Values    []string // in the order of group_by
	Endpoints []Endpoint
}

// Shards relabels targets and divides them. Without group_by, there is always one shard.
// The findings say which targets and labels are not used.
func Shards(c *config.Group, tgs []*targetgroup.Group) ([]Shard, []string) {
	var problems targetFindings
	var list []Shard
	byName := map[string]int{}
	if len(c.GroupBy) == 0 {
		list, byName[c.Name] = []Shard{{}}, 0
	}
	seen := map[string]string{} // the name of the group that has the endpoint
	for _, tg := range tgs {
		for _, t := range tg.Targets {
			e, err := relabeled(c, tg, t)
			if err != nil {
				problems.add(err.Error() + "; it is left out")
				continue
			}
			if e == nil {
				continue
			}
			for _, name := range unusedLabels(c, e) {
				problems.add(fmt.Sprintf("label %q of discovered targets is not used: %s", name, otherLabels))
			}
			values, err := groupValues(c, e)
			if err != nil {
				problems.add(fmt.Sprintf("target %s %s; it is left out", e.URL.Redacted(), err))
				continue
			}
			name := NameOf(c, values)
			if first, ok := seen[e.Key()]; ok {
				if first != name {
					problems.add(fmt.Sprintf("target %s is in group %q and in %q; the second one does without it", e.URL.Redacted(), first, name))
				}
				continue
			}
			seen[e.Key()] = name
			i, ok := byName[name]
			if !ok {
				i = len(list)
				byName[name] = i
				list = append(list, Shard{Values: values})
			}
			list[i].Endpoints = append(list[i].Endpoints, *e)
		}
	}
	slices.SortFunc(list, func(a, b Shard) int { return slices.Compare(a.Values, b.Values) })
	return list, problems.list()
}

// Limit returns at most group_limit shards, and reports whether these are all. It prefers those of
// groups for whose names exists is true.
func Limit(c *config.Group, list []Shard, exists func(name string) bool) ([]Shard, bool) {
	if len(c.GroupBy) == 0 || len(list) <= c.GroupLimit {
		return list, true
	}
	isNew := func(s Shard) int {
		if exists(NameOf(c, s.Values)) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b Shard) int { return cmp.Compare(isNew(a), isNew(b)) })
	list = list[:c.GroupLimit]
	slices.SortFunc(list, func(a, b Shard) int { return slices.Compare(a.Values, b.Values) })
	return list, false
}

// GroupOf returns the configuration of the group for values of the group_by labels.
func GroupOf(c *config.Group, values []string) config.Group {
	if len(values) == 0 {
		return *c
	}
	one := *c
	one.Name = NameOf(c, values)
	one.Labels = maps.Clone(c.Labels)
	if one.Labels == nil {
		one.Labels = map[string]string{}
	}
	for i, name := range c.GroupBy {
		one.Labels[name] = values[i]
	}
	return one
}

// NameOf returns the name of the group for values of the group_by labels, such as `shards/3`.
// Values have different names: slashes, percent signs and what cannot be printed are escaped as
// in a URL.
func NameOf(c *config.Group, values []string) string {
	var b strings.Builder
	b.WriteString(c.Name)
	for _, v := range values {
		b.WriteByte('/')
		for len(v) > 0 {
			r, size := utf8.DecodeRuneInString(v)
			if r == '/' || r == '%' || r == utf8.RuneError || !unicode.IsPrint(r) {
				for _, raw := range []byte(v[:size]) {
					fmt.Fprintf(&b, "%%%02X", raw)
				}
			} else {
				b.WriteString(v[:size])
			}
			v = v[size:]
		}
	}
	return b.String()
}

// Makes reports whether a name may be that of a group that group_by makes.
func Makes(c *config.Group, name string) bool {
	return len(c.GroupBy) > 0 && strings.HasPrefix(name, c.Name+"/")
}

// targetFindings collects what is wrong with targets, each text once.
type targetFindings struct {
	seen map[string]bool
	more int
}

// mostTargetFindings is the most texts, as discovery may find any number of targets.
const mostTargetFindings = 20

func (f *targetFindings) add(text string) {
	switch {
	case f.seen[text]:
	case len(f.seen) >= mostTargetFindings:
		f.more++
	case f.seen == nil:
		f.seen = map[string]bool{text: true}
	default:
		f.seen[text] = true
	}
}

func (f *targetFindings) list() []string {
	texts := slices.Sorted(maps.Keys(f.seen))
	if f.more > 0 {
		texts = append(texts, fmt.Sprintf("%d more targets are left out, or have labels that are not used", f.more))
	}
	return texts
}
