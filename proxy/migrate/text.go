package migrate

import (
	"bytes"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// width is where comments are wrapped.
const width = 92

// A text is a part of the file, which is put together line by line: the YAML library
// does not keep comments where they belong.
type text struct{ lines []string }

func (t *text) String() string { return strings.Join(t.lines, "\n") + "\n" }

func (t *text) blank() { t.lines = append(t.lines, "") }

// note writes a comment.
func (t *text) note(format string, args ...any) {
	line := "#"
	for word := range strings.FieldsSeq(fmt.Sprintf(format, args...)) {
		if len(line)+1+len(word) > width && line != "#" {
			t.lines = append(t.lines, line)
			line = "#"
		}
		line += " " + word
	}
	t.lines = append(t.lines, line)
}

// comment writes a comment of the file itself.
func (t *text) comment(lines string) {
	if lines != "" {
		t.lines = append(t.lines, strings.Split(lines, "\n")...)
	}
}

// entry writes a key with its value.
func (t *text) entry(key string, value any) {
	var n yaml.Node
	if err := n.Encode(value); err != nil {
		panic(err) // strings, and lists and maps of them
	}
	t.setting(setting{&yaml.Node{Kind: yaml.ScalarNode, Value: key}, &n})
}

// setting writes a setting of the file as it is, with the comments that it has.
func (t *text) setting(s setting) { t.lines = append(t.lines, yamlOf(s)...) }

// was writes settings that have no place, below the reason.
func (t *text) was(reason string, all ...setting) {
	if reason == "" {
		reason = "oneprom has no such key."
	}
	t.note("%s", reason)
	for _, s := range all {
		for _, line := range yamlOf(s) {
			t.lines = append(t.lines, strings.TrimRight("# "+line, " "))
		}
	}
}

// section writes what is below a key.
func (t *text) section(key string, below *text) {
	t.lines = append(t.lines, key+":")
	t.indented("  ", "  ", below)
}

// item writes a mapping as an item of a list. Its first line is a key.
func (t *text) item(below *text) { t.indented("- ", "  ", below) }

func (t *text) indented(first, others string, below *text) {
	prefix := first
	for _, line := range below.lines {
		if line != "" {
			line = prefix + line
		}
		t.lines, prefix = append(t.lines, line), others
	}
}

// yamlOf is a setting as lines of YAML.
func yamlOf(s setting) []string {
	key := *s.key
	key.FootComment = ""
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{&key, s.value}}); err != nil {
		panic(err) // it was read as YAML
	}
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}
