package migrate

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"
)

// A shard is what becomes a group of its own: the static_configs that have the same
// labels. promxy adds labels of targets to their series, and only the targets that
// have the same ones are replicas of each other.
type shard struct {
	labels  map[string]string
	statics []*yaml.Node // the static_configs, without labels of series
}

// group writes server group i, which may become several.
func (m *migration) group(i int, g *settings, out *text) {
	shards := shardsOf(g)
	name, named := g.take("name")
	var common text // what is the same for all shards
	own, _ := g.take("labels")
	m.discovery(g, &common, len(shards) > 1)
	m.replicaLabels(g, &common)
	m.timeRange(g, &common)
	m.requests(g, &common)
	m.client(g, &common)
	m.errors(g, &common)
	m.tellRest(g, &common)
	for _, shard := range shards {
		var group text
		labels := maps.Clone(shard.labels)
		if labels == nil {
			labels = map[string]string{}
		}
		readable := true
		if own.value != nil {
			var values map[string]string
			values, readable = own.strings()
			maps.Copy(labels, values)
		}
		wanted := name.value
		switch {
		case named && len(shards) == 1:
			group.entry("name", m.nameOf(wanted.Value))
		case named:
			group.entry("name", m.nameOf(wanted.Value+"-"+joined(shard.labels)))
		default:
			group.entry("name", m.nameOf(madeUp(i, labels, shard)))
			group.note("The name is made up: warnings and metrics name groups.")
		}
		if len(shards) > 1 {
			group.note("One of %d groups that were one: promxy takes only targets with the same labels for replicas of each other.", len(shards))
		}
		switch {
		case !readable:
			group.setting(own)
		case len(labels) > 0:
			group.entry("labels", labels)
		}
		if len(shard.statics) > 0 {
			group.entry("static_configs", shard.statics)
		}
		group.lines = append(group.lines, common.lines...)
		if len(out.lines) > 0 {
			out.blank()
		}
		out.comment(g.node.HeadComment)
		out.item(&group)
	}
}

// tellRest writes what is left of a group. Keys that mean something else here than in
// promxy are not among them.
func (m *migration) tellRest(g *settings, out *text) {
	m.keepOrTell(out, g.rest(), groupReasons, "server_groups")
}

// shardsOf takes the static_configs of a group, and divides them by their labels. The
// first one has none if the group has other targets.
func shardsOf(g *settings) []*shard {
	var shards []*shard
	for s := range g.all {
		if strings.HasSuffix(s.key.Value, "_sd_configs") && !isNull(s.value) {
			shards = []*shard{{}}
		}
	}
	statics, ok := g.take("static_configs")
	if !ok || statics.value.Kind != yaml.SequenceNode {
		return append(shards, &shard{})[:1]
	}
	for _, n := range statics.value.Content {
		static := settingsOf(n)
		bare := &yaml.Node{Kind: yaml.MappingNode, HeadComment: n.HeadComment}
		labels := map[string]string{}
		if s, ok := static.take("labels"); ok {
			if labels, ok = s.strings(); ok {
				s.value = forRelabeling(labels)
			}
			if !ok || len(s.value.Content) > 0 { // what is malformed stays where it is complained of
				bare.Content = append(bare.Content, s.key, s.value)
			}
		}
		for _, s := range static.rest() {
			bare.Content = append(bare.Content, s.key, s.value)
		}
		at := slices.IndexFunc(shards, func(s *shard) bool { return maps.Equal(s.labels, labels) })
		if at < 0 {
			at = len(shards)
			shards = append(shards, &shard{labels: labels})
		}
		shards[at].statics = append(shards[at].statics, bare)
	}
	if len(shards) == 0 {
		return []*shard{{}}
	}
	return shards
}

// forRelabeling takes the labels out that are of no series: those that begin with `__`, which
// relabel_configs read.
func forRelabeling(labels map[string]string) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if strings.HasPrefix(name, "__") {
			out.Content = append(out.Content, stringNode(name), stringNode(labels[name]))
			delete(labels, name)
		}
	}
	return out
}

// stringNode is a string in YAML, whatever it looks like.
func stringNode(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

// madeUp is a name for group i: what its labels say, or its first target.
func madeUp(i int, labels map[string]string, s *shard) string {
	if name := joined(labels); name != "" {
		return name
	}
	for _, static := range s.statics {
		targets, _ := settingsOf(static).take("targets")
		if targets.value == nil || len(targets.value.Content) == 0 {
			continue
		}
		address := targets.value.Content[0].Value
		if host, _, err := net.SplitHostPort(address); err == nil {
			address = host
		}
		if address != "" {
			return address
		}
	}
	return fmt.Sprintf("group-%d", i+1)
}

// joined are the values of labels, in the order of their names.
func joined(labels map[string]string) string {
	var values []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		values = append(values, labels[name])
	}
	return strings.Join(values, "-")
}

// discovery writes how targets are found. Those that are not static belong to the
// first shard, which is the one without labels.
func (m *migration) discovery(g *settings, out *text, several bool) {
	found := false
	for _, s := range g.rest() {
		if !strings.HasSuffix(s.key.Value, "_sd_configs") {
			continue
		}
		g.taken[s.key.Value], found = true, true
		reasons := map[string]string{s.key.Value: "This binary does not have this service discovery: docs/discovery.md says how to build one that has."}
		m.keepOrTell(out, []setting{s}, reasons, "server_groups")
	}
	var by []string
	if s, ok := g.take("relabel_configs"); ok {
		m.keepOrTell(out, []setting{s}, groupReasons, "server_groups")
		by, found = m.seriesLabels(s, g), true
	}
	switch {
	case len(by) > 0:
		out.note("promxy adds these labels of targets to their series, and takes only targets with the same ones for replicas. Here a target without one of them is left out.")
		out.entry("group_by", by)
	case found:
		out.note("If targets are found with labels that tell shards apart, name these in `group_by`: [label, …]: that makes a group of each. promxy adds all labels of a target to its series.")
	}
	if several && found {
		out.note("These targets were in one group with static ones that have labels: they must not be in several groups.")
	}
}

// seriesLabels are the labels of series that rules for the labels of targets make, but for
// those that the group has itself, which win.
func (m *migration) seriesLabels(s setting, g *settings) []string {
	var rules []struct {
		Target string `yaml:"target_label"`
	}
	if s.value.Decode(&rules) != nil {
		return nil
	}
	var own map[string]string
	if labels, ok := g.take("labels"); ok {
		own, _ = labels.strings()
	}
	var names []string
	for _, r := range rules {
		_, is := own[r.Target]
		if !is && !slices.Contains(names, r.Target) && r.Target != "" && !strings.HasPrefix(r.Target, "__") && !strings.Contains(r.Target, "$") {
			names = append(names, r.Target)
		}
	}
	return names
}

// replicaLabels writes the labels that metrics_relabel_configs drop.
func (m *migration) replicaLabels(g *settings, out *text) {
	s, ok := g.take("metrics_relabel_configs")
	if !ok {
		return
	}
	var rules []struct {
		Action string `yaml:"action"`
		Source string `yaml:"source_label"`
		Target string `yaml:"target_label"`
		Regex  string `yaml:"regex"`
	}
	if err := s.value.Decode(&rules); err != nil {
		out.was(groupReasons["metrics_relabel_configs"], s)
		return
	}
	uses := map[string]int{}
	for _, r := range rules {
		uses[r.Source]++
		if r.Target != r.Source {
			uses[r.Target]++
		}
	}
	var dropped []string
	left := &yaml.Node{Kind: yaml.SequenceNode}
	for i, r := range rules {
		names := []string{r.Source}
		if r.Source == "" {
			names = strings.Split(r.Regex, "|")
		}
		if r.Action == "labeldrop" && !slices.ContainsFunc(names, func(name string) bool {
			return !model.LegacyValidation.IsValidLabelName(name) || name != r.Source && uses[name] > 0 || uses[name] > 1
		}) {
			dropped = append(dropped, names...)
		} else {
			left.Content = append(left.Content, s.value.Content[i])
		}
	}
	if len(dropped) > 0 {
		out.entry("replica_labels", dropped)
	}
	if len(left.Content) > 0 {
		out.was(groupReasons["metrics_relabel_configs"], setting{s.key, left})
	}
}

// timeRange writes what a group is asked for.
func (m *migration) timeRange(g *settings, out *text) {
	type bound struct{ key, value string }
	var bounds []bound
	whole := false // promxy asks for what is beyond, too
	if s, ok := g.take("relative_time_range"); ok {
		r := settingsOf(s.value)
		for _, b := range []struct{ from, to string }{{"start", "max_age"}, {"end", "min_age"}} {
			s, ok := r.take(b.from)
			if !ok {
				continue
			}
			switch d, ok := s.duration(); {
			case !ok:
				out.was("relative_time_range: this is not a duration.", s)
			case d < 0:
				bounds = append(bounds, bound{b.to, written(-d)})
			case d > 0 || b.from == "start":
				out.was("relative_time_range: there are no ages of what is yet to come.", s)
			}
		}
		truncate, _ := r.take("truncate")
		whole = whole || truncate.value == nil || !truncate.isTrue()
	}
	if s, ok := g.take("absolute_time_range"); ok {
		r := settingsOf(s.value)
		for _, key := range []string{"start", "end"} {
			s, ok := r.take(key)
			if !ok {
				continue
			}
			var at time.Time
			if err := s.value.Decode(&at); err != nil {
				out.was("absolute_time_range: this is not a time.", s)
				continue
			}
			bounds = append(bounds, bound{key, at.Format(time.RFC3339Nano)})
		}
		truncate, _ := r.take("truncate")
		whole = whole || truncate.value == nil || !truncate.isTrue()
	}
	if len(bounds) == 0 {
		return
	}
	if whole {
		out.note("Only samples in this range are asked for, as by promxy with `truncate`. Without it, promxy asks for all of a query if a part is in the range: widen it if the servers hold more.")
	}
	var below text
	for _, b := range bounds {
		below.entry(b.key, b.value)
	}
	out.section("time_range", &below)
}

// requests writes what requests to the servers look like.
func (m *migration) requests(g *settings, out *text) {
	if s, ok := g.take("scheme"); ok {
		out.setting(s)
	}
	if s, ok := g.take("path_prefix"); ok {
		if path := strings.TrimSuffix(strings.Trim(s.value.Value, "/"), "api/v1"); path != "" {
			out.entry("path_prefix", "/"+strings.TrimSuffix(path, "/"))
		}
	}
	if s, ok := g.take("query_params"); ok {
		if values, ok := s.strings(); ok {
			params := map[string][]string{}
			for name, value := range values {
				params[name] = []string{value}
			}
			out.entry("query_params", params)
		} else {
			out.setting(s)
		}
	}
	if s, ok := g.take("http_headers"); ok {
		m.headers(s, g, out)
	}
	if s, ok := g.take("remote_read"); ok {
		out.was("Not needed: `remote_read: auto`, the default, finds out whether the servers have it.", s)
	}
	if s, ok := g.take("remote_read_path"); ok {
		if path := strings.Trim(s.value.Value, "/"); path != "api/v1/read" {
			out.entry("remote_read_path", "/"+path)
		}
	}
	if s, ok := g.take("timeout"); ok {
		d, ok := s.duration()
		switch {
		case ok && d > 0:
			out.note("Of the whole request. In promxy it ends with the head of the response.")
			out.entry("timeout", written(d))
		case !ok:
			out.setting(s)
		}
	}
}

// headers writes headers. Credentials have keys of their own here.
func (m *migration) headers(s setting, _ *settings, out *text) {
	values, ok := s.strings()
	if !ok {
		// A header may choose a tenant: oneprom must not accept the file without it.
		out.note("http_headers: expected a mapping of names to values.")
		out.setting(setting{stringNode("headers"), s.value})
		return
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		scheme, credentials, _ := strings.Cut(values[name], " ")
		own := setting{&yaml.Node{Kind: yaml.ScalarNode, Value: name}, &yaml.Node{Kind: yaml.ScalarNode, Value: values[name]}}
		_, reserved := commoncfg.ReservedHeaders[http.CanonicalHeaderKey(name)]
		switch {
		case !strings.EqualFold(name, "Authorization"):
			if reserved {
				out.was("http_headers: requests set this header themselves.", own)
				break
			}
			continue
		case strings.EqualFold(scheme, "Basic"):
			if decoded, err := base64.StdEncoding.DecodeString(credentials); err == nil {
				user, password, _ := strings.Cut(string(decoded), ":")
				out.entry("basic_auth", map[string]string{"username": user, "password": password})
			} else { // which oneprom does not accept
				out.note("http_headers: these credentials are none of Basic authentication.")
				out.entry("authorization", map[string]string{"type": scheme, "credentials": credentials})
			}
		default:
			out.entry("authorization", map[string]string{"type": scheme, "credentials": credentials})
		}
		delete(values, name)
	}
	if len(values) > 0 {
		out.entry("headers", values)
	}
}

// client writes what is below http_client, which here is right in the group.
func (m *migration) client(g *settings, out *text) {
	s, ok := g.take("http_client")
	if !ok {
		return
	}
	m.keepOrTell(out, settingsOf(s.value).rest(), clientReasons, "server_groups")
}

// errors writes what becomes of a query if the group does not answer.
func (m *migration) errors(g *settings, out *text) {
	optional := ""
	for _, key := range []string{"ignore_error", "downgrade_error"} {
		if s, ok := g.take(key); ok && s.isTrue() && optional == "" {
			optional = key
		}
	}
	if optional != "" {
		out.note("For `%s`: the answer says what is missing.", optional)
		out.entry("partial_response", "warn")
	}
}
