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

// A Shard is the targets that make one group: those for which the labels of group_by
// have the same values.
type Shard struct {
	Values    []string // in the order of group_by
	Endpoints []Endpoint
}

// Shards relabels targets and divides them. Without group_by, there is always one shard.
// The findings say which targets and labels are not used.
func Shards(c *config.Group, tgs []*targetgroup.Group) ([]Shard, []string) {
	var found targetFindings
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
				found.add(err.Error() + "; it is left out")
				continue
			}
			if e == nil {
				continue
			}
			for _, name := range unusedLabels(c, e) {
				found.add(fmt.Sprintf("label %q of discovered targets is not used: %s", name, otherLabels))
			}
			values, err := groupValues(c, e)
			if err != nil {
				found.add(fmt.Sprintf("target %s %s; it is left out", e.URL.Redacted(), err))
				continue
			}
			name := NameOf(c, values)
			if first, ok := seen[e.Key()]; ok {
				if first != name {
					found.add(fmt.Sprintf("target %s is in group %q and in %q; the second one does without it", e.URL.Redacted(), first, name))
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
	return list, found.list()
}

// Limit returns at most group_limit shards, rather those of groups whose names are known,
// and reports whether that is all of them.
func Limit(c *config.Group, list []Shard, known func(name string) bool) ([]Shard, bool) {
	if len(c.GroupBy) == 0 || len(list) <= c.GroupLimit {
		return list, true
	}
	isNew := func(s Shard) int {
		if known(NameOf(c, s.Values)) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b Shard) int { return cmp.Compare(isNew(a), isNew(b)) })
	list = list[:c.GroupLimit]
	slices.SortFunc(list, func(a, b Shard) int { return slices.Compare(a.Values, b.Values) })
	return list, false
}

// GroupOf is the configuration of the group for some values of the labels of group_by.
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

// NameOf is the name of the group for some values of the labels of group_by, as in
// `shards/3`. No two groups have the same one: what could be taken for another name, or
// cannot be printed, is escaped as in a URL.
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

// Makes reports whether a name is one of those that group_by gives to the groups that it
// makes.
func Makes(c *config.Group, name string) bool {
	return len(c.GroupBy) > 0 && strings.HasPrefix(name, c.Name+"/")
}

// targetFindings are what is wrong with targets, each text once.
type targetFindings struct {
	seen map[string]bool
	more int
}

// mostTargetFindings bounds them, as discovery may tell of any number of targets.
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
