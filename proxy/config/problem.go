package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// A problem is one thing that is wrong with a file. It never shows a value that
// may be secret.
type problem struct {
	file         string
	line, column int // from 1
	path         groupconfig.Path
	msg          string
	// minor: what it is about can be read, so that it hides no other problem.
	minor bool
}

func (p *problem) Error() string {
	if len(p.path) == 0 {
		return fmt.Sprintf("%s:%d: %s", p.file, p.line, p.msg)
	}
	return fmt.Sprintf("%s:%d: %s: %s", p.file, p.line, p.path, p.msg)
}

// A checker collects the problems of a file.
type checker struct {
	file     string
	problems []*problem
}

// add adds a problem of the setting that path leads to, where at is.
func (c *checker) add(at *yaml.Node, path groupconfig.Path, format string, args ...any) {
	c.addLine(at.Line, at.Column, path, fmt.Sprintf(format, args...))
}

func (c *checker) addLine(line, column int, path groupconfig.Path, msg string) {
	shown := make(groupconfig.Path, len(path))
	for i, step := range path {
		if key, ok := step.(string); ok {
			step = shownKey(key)
		}
		shown[i] = step
	}
	c.problems = append(c.problems, &problem{file: c.file, line: max(line, 1), column: column, path: shown, msg: msg})
}

// addMinor is add for a minor problem.
func (c *checker) addMinor(at *yaml.Node, path groupconfig.Path, msg string) {
	c.add(at, path, "%s", msg)
	c.problems[len(c.problems)-1].minor = true
}

// shownKey leaves out what may be a value: `password:secret`, without a space
// after the colon, is a key.
func shownKey(key string) string {
	if i := strings.IndexAny(key, ":= \t\r\n"); i >= 0 {
		return key[:i] + "…"
	}
	return key
}

// clean reports whether nothing but minor problems is wrong below path so far.
func (c *checker) clean(path ...any) bool {
	return !slices.ContainsFunc(c.problems, func(p *problem) bool {
		return !p.minor && len(p.path) >= len(path) && slices.Equal(p.path[:len(path)], path)
	})
}

// err joins the problems by line. What aliases repeat is one problem.
func (c *checker) err() error {
	slices.SortStableFunc(c.problems, func(a, b *problem) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	type place struct {
		line, column int
		msg          string
	}
	seen := map[place]bool{}
	var errs []error
	for _, p := range c.problems {
		if at := (place{p.line, p.column, p.msg}); !seen[at] {
			seen[at] = true
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}
