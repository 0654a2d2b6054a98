package migrate

import (
	"time"

	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"
)

// A setting is a key with its value.
type setting struct{ key, value *yaml.Node }

// settings are a mapping whose keys are taken one by one; what is left has no place of
// its own.
type settings struct {
	node  *yaml.Node
	taken map[string]bool
}

func settingsOf(n *yaml.Node) *settings { return &settings{n, map[string]bool{}} }

func (s *settings) all(yield func(setting) bool) {
	if s.node.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		if !yield(setting{s.node.Content[i], s.node.Content[i+1]}) {
			return
		}
	}
}

// take returns a setting, if it is there with a value.
func (s *settings) take(key string) (setting, bool) {
	for found := range s.all {
		if found.key.Value == key {
			s.taken[key] = true
			return found, !isNull(found.value)
		}
	}
	return setting{}, false
}

func (s *settings) has(key string) bool { return s.line(key) > 0 }

// line is where a key is, or 0.
func (s *settings) line(key string) int {
	for found := range s.all {
		if found.key.Value == key {
			return found.key.Line
		}
	}
	return 0
}

// rest are the settings that were not taken and have a value.
func (s *settings) rest() []setting {
	var rest []setting
	for found := range s.all {
		if !s.taken[found.key.Value] && !isNull(found.value) {
			rest = append(rest, found)
		}
	}
	return rest
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (s setting) isTrue() bool {
	var b bool
	return s.value.Decode(&b) == nil && b
}

// duration reads a duration as promxy does: in the notation of Go, or in nanoseconds.
func (s setting) duration() (d time.Duration, ok bool) {
	var nanoseconds int64
	if s.value.Decode(&nanoseconds) == nil {
		return time.Duration(nanoseconds), true
	}
	d, err := time.ParseDuration(s.value.Value)
	return d, err == nil
}

// written is a duration as Prometheus and oneprom write it, which have no smaller unit
// than a millisecond.
func written(d time.Duration) string {
	return model.Duration(max(d.Round(time.Millisecond), time.Millisecond)).String()
}

// strings are the values of a mapping of names to strings; ok is false if it is
// something else.
func (s setting) strings() (values map[string]string, ok bool) {
	return values, s.value.Decode(&values) == nil
}
