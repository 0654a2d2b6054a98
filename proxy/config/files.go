package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	commoncfg "github.com/prometheus/common/config"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// pathKeys are keys of files that the name does not show: those that do end in _file.
var pathKeys = []string{"token_file_path", "certificate_path", "certificate_key_path", "credentials_file_path", "private_key_path", "service_account_key_path"}

// CheckFiles looks at the files that a configuration file names: secrets, certificates and targets,
// but not those of rules. The error says which cannot be used. Patterns that no file matches are
// warnings, as a file may be written later.
func CheckFiles(path string) (warnings []string, err error) {
	data, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	err = guarded(data, path, func(c *checker) {
		if root := c.parse(data); root != nil {
			f := fileChecker{checker: c, dir: filepath.Dir(path)}
			f.walk(resolved(root), reflect.TypeFor[Config](), nil)
			warnings = f.warnings
		}
	})
	return warnings, err
}

// fileChecker collects what is wrong with files that a configuration names.
type fileChecker struct {
	*checker
	dir      string
	warnings []string
}

// walk looks at the files that n, which is of type t, names.
func (f *fileChecker) walk(n *yaml.Node, t reflect.Type, path groupconfig.Path) {
	form := shape(t)
	switch {
	case n.Kind == yaml.SequenceNode && form.Kind() == reflect.Slice:
		for i, item := range n.Content {
			f.walk(item, form.Elem(), append(slices.Clone(path), i))
		}
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i].Value, n.Content[i+1]
			if below := valueType(form, key); below != nil {
				f.setting(key, value, form, below, append(slices.Clone(path), key))
			}
		}
	}
}

// setting looks at what a key has, which is of type t.
func (f *fileChecker) setting(key string, n *yaml.Node, form, t reflect.Type, path groupconfig.Path) {
	switch {
	case form.Kind() != reflect.Struct:
		f.walk(n, t, path)
	case key == "query_log_file" && n.Value != "":
		f.file(n, path, filepath.Dir(commoncfg.JoinDir(f.dir, n.Value)), true)
	case strings.HasSuffix(key, "_file") || slices.Contains(pathKeys, key):
		if n.Kind == yaml.ScalarNode && !isNull(n) && n.Value != "" {
			f.file(n, path, commoncfg.JoinDir(f.dir, n.Value), false)
		}
	case key == "files" && form == reflect.TypeFor[commoncfg.Header]():
		for i, item := range n.Content {
			f.file(item, append(path, i), commoncfg.JoinDir(f.dir, item.Value), false)
		}
	case key == "files" && slices.Contains(path, any("file_sd_configs")):
		for i, item := range n.Content {
			if found, err := filepath.Glob(commoncfg.JoinDir(f.dir, item.Value)); err == nil && len(found) == 0 {
				f.warnings = append(f.warnings, fmt.Sprintf("%s:%d: %s: there is no file %s", f.checker.file, item.Line, append(path, i), item.Value))
			}
		}
	default:
		f.walk(n, t, path)
	}
}

// file adds a problem if there is no such file, or directory.
func (f *fileChecker) file(n *yaml.Node, path groupconfig.Path, name string, directory bool) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		f.add(n, path, "%s", err)
	case info.IsDir() != directory && directory:
		f.add(n, path, "%s is no directory", name)
	case info.IsDir() != directory:
		f.add(n, path, "%s is a directory", name)
	}
}

// places are the lines of settings, by their path.
type places struct {
	file  string
	lines map[string]int
}

// At says where a setting is, as errors about it begin: `oneprom.yml:12: rule_files[0]`. It knows the
// line of what is at most two steps below a section, and of groups.
func (c *Config) At(path ...any) string {
	at := groupconfig.Path(path).String()
	if line := c.places.lines[at]; line > 0 {
		return fmt.Sprintf("%s:%d: %s", c.places.file, line, at)
	}
	return at
}

// add remembers the lines of what is below n, down to some depth.
func (p *places) add(n *yaml.Node, path groupconfig.Path, depth int) {
	if depth == 0 {
		return
	}
	n = deref(n)
	below := func(at, value *yaml.Node, step any) {
		path := append(slices.Clone(path), step)
		p.lines[path.String()] = at.Line
		if step == "server_groups" {
			p.add(value, path, 1) // there may be many
			return
		}
		p.add(value, path, depth-1)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for i, item := range n.Content {
			below(item, item, i)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			below(n.Content[i], n.Content[i+1], n.Content[i].Value)
		}
	}
}
