// Package migrate writes a configuration of oneprom that does what one of promxy, or of
// Prometheus, does. What has no equal becomes a comment that says why.
package migrate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/oneprom/oneprom/proxy/config"
)

// File migrates the configuration file data; name stands for it in comments and
// errors. The result may have problems still, which config.Parse tells, if the file's
// own settings cannot be right here: a server in two groups, for instance.
func File(data []byte, name string) ([]byte, error) {
	root, err := config.Document(data, name)
	if err != nil {
		return nil, err
	}
	m := &migration{file: name, names: map[string]bool{}}
	if err := m.migrate(root); err != nil {
		return nil, err
	}
	return []byte(m.out.String()), nil
}

// A migration is a file in the making.
type migration struct {
	file  string
	out   text
	names map[string]bool // of groups, those that are taken
}

func (m *migration) migrate(root *yaml.Node) error {
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: neither a configuration of promxy nor of Prometheus: expected a mapping", m.file, root.Line)
	}
	top := settingsOf(root)
	if top.has("server_groups") {
		return fmt.Errorf("%s:%d: a configuration of oneprom already: there are server_groups at the top level", m.file, top.line("server_groups"))
	}
	m.out.note("Written by `oneprom migrate %s`: read the comments, they say what differs. Before you switch, compare the answers with `oneprom verify`.", m.file)
	m.out.blank()
	var groups text
	var err error
	switch promxy, ok := top.take("promxy"); {
	case ok:
		err = m.promxy(top, settingsOf(promxy.value), &groups)
	case config.IsPrometheus(root):
		m.prometheus(top, &groups)
	default:
		err = fmt.Errorf("%s:%d: neither a configuration of promxy (there is no `promxy`) nor of Prometheus (there are no scrape_configs)", m.file, root.Line)
	}
	m.out.section("server_groups", &groups)
	return err
}

// promxy writes what promxy does. It does all of it itself: rules and alerts, too.
func (m *migration) promxy(top, promxy *settings, groups *text) error {
	var global text
	if s, ok := top.take("global"); ok {
		m.keepOrTell(&global, settingsOf(s.value).rest(), globalReasons, "global")
	}
	global.note("What becomes of a query if a group cannot answer: as in promxy it fails, unless the group says otherwise. `warn` answers with what the others know and says what is missing.")
	global.entry("partial_response", "error")
	m.out.section("global", &global)
	m.out.blank()
	list, ok := promxy.take("server_groups")
	for _, s := range top.rest() {
		m.keepOrTell(&m.out, []setting{s}, topReasons)
		m.out.blank()
	}
	for _, s := range promxy.rest() {
		m.out.was(promxyReasons[s.key.Value], s)
		m.out.blank()
	}
	if !ok || list.value.Kind != yaml.SequenceNode || len(list.value.Content) == 0 {
		return fmt.Errorf("%s:%d: promxy.server_groups: expected a list of server groups", m.file, top.line("promxy"))
	}
	for i, n := range list.value.Content {
		if n.Kind != yaml.MappingNode {
			return fmt.Errorf("%s:%d: promxy.server_groups[%d]: expected a mapping", m.file, n.Line, i)
		}
		m.group(i, settingsOf(n), groups)
	}
	return nil
}

// prometheus writes the one group that a Prometheus by itself is. Most of what it does
// stays with it.
func (m *migration) prometheus(top *settings, groups *text) {
	var replica string // the label that tells twins apart
	var global text
	if s, ok := top.take("global"); ok {
		all := settingsOf(s.value)
		if s, ok := all.take("external_labels"); ok {
			labels, _ := s.strings()
			for _, name := range slices.Sorted(maps.Keys(labels)) {
				if strings.Contains(name, "replica") {
					replica = name
				}
			}
		}
		if s, ok := all.take("evaluation_interval"); ok {
			global.note("The step of subqueries that name none, as in the server.")
			global.setting(s)
			m.out.section("global", &global)
			m.out.blank()
		}
	}
	for _, s := range top.rest() {
		switch reason := staying[s.key.Value]; {
		case reason != "":
			m.out.note("%s: %s", s.key.Value, reason)
		default:
			m.keepOrTell(&m.out, []setting{s}, topReasons)
		}
		m.out.blank()
	}
	var group text
	group.entry("name", "prometheus")
	group.note("The Prometheus that this file is of, as it is reached from oneprom, and after it its twins with the same scrape_configs.")
	group.entry("static_configs", []map[string][]string{{"targets": {"localhost:9090"}}})
	if replica != "" {
		group.note("The external label in which its twins differ.")
		group.entry("replica_labels", []string{replica})
	}
	groups.item(&group)
}

// keepOrTell writes settings as they are if oneprom knows them below path, and the
// others as comments, those with the same reason together.
func (m *migration) keepOrTell(out *text, all []setting, reasons map[string]string, path ...string) {
	told := map[string]bool{}
	for _, s := range all {
		key := s.key.Value
		if config.Knows(append(slices.Clone(path), key)...) {
			out.setting(s)
			continue
		}
		reason := reasons[key]
		if told[reason] && reason != "" {
			continue
		}
		told[reason] = true
		same := []setting{s}
		if reason != "" {
			same = slices.DeleteFunc(slices.Clone(all), func(s setting) bool { return reasons[s.key.Value] != reason })
		}
		out.was(reason, same...)
	}
}

// nameOf makes up the name of a group, unique in the file.
func (m *migration) nameOf(wanted string) string {
	wanted = strings.TrimSpace(wanted)
	name := wanted
	for n := 2; m.names[name]; n++ {
		name = fmt.Sprintf("%s-%d", wanted, n)
	}
	m.names[name] = true
	return name
}
