package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// What the documents are held to.
const (
	maxReadmeLines   = 150
	maxLineLength    = 199 // characters
	maxSentenceWords = 25
)

var (
	fence      = regexp.MustCompile("^\\s*```")
	heading    = regexp.MustCompile(`^#+ +(.*)$`)
	listItem   = regexp.MustCompile(`^\s*(?:[-*]|\d+\.) +`)
	inlineCode = regexp.MustCompile("`[^`]*`")
	link       = regexp.MustCompile(`!?\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)`)
	testName   = regexp.MustCompile(`\b((?:Test|Benchmark|Fuzz)[A-Z]\w*)(…?)`)
	// pathInRepository matches paths of folders and files that are there in a clean clone.
	pathInRepository = regexp.MustCompile(`^(?:dedup|docs|promqlx|proxy|servergroup|testdata|\.ci)/[\w./-]*$`)
	sentenceEnd      = regexp.MustCompile(`[.!?][)"'*_]*(?:\s+|$)`)
	declaration      = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)
)

// document is a Markdown file.
type document struct {
	path  string
	lines []string
}

// documents reads the Markdown files of the root and of docs.
func documents(t *testing.T) []document {
	t.Helper()
	var docs []document
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, paths)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			docs = append(docs, document{path, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")})
		}
	}
	return docs
}

// prose calls f with each line outside fenced code, and with its number.
func (d document) prose(f func(number int, line string)) {
	code := false
	for i, line := range d.lines {
		switch {
		case fence.MatchString(line):
			code = !code
		case !code:
			f(i+1, line)
		}
	}
}

// anchors returns the fragments that lead to the headings, as GitHub makes them.
func (d document) anchors() map[string]bool {
	anchors := map[string]bool{}
	d.prose(func(_ int, line string) {
		if m := heading.FindStringSubmatch(line); m != nil {
			anchors[anchor(link.ReplaceAllString(m[1], "$1"))] = true
		}
	})
	return anchors
}

// anchor returns the fragment of one heading.
func anchor(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}

// TestDocs_Links: a relative link leads to a file, and a fragment to a heading of it.
func TestDocs_Links(t *testing.T) {
	docs := documents(t)
	anchors := map[string]map[string]bool{}
	for _, d := range docs {
		anchors[d.path] = d.anchors()
	}
	for _, d := range docs {
		d.prose(func(number int, line string) {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				target, fragment, _ := strings.Cut(m[2], "#")
				if strings.Contains(target, "://") {
					continue
				}
				path := d.path
				if target != "" {
					path = filepath.Join(filepath.Dir(d.path), target)
				}
				if _, err := os.Stat(path); err != nil {
					t.Errorf("%s:%d: the link %q leads nowhere", d.path, number, m[2])
					continue
				}
				if fragment != "" && !anchors[path][fragment] {
					t.Errorf("%s:%d: the link %q leads to no heading", d.path, number, m[2])
				}
			}
		})
	}
}

// TestDocs_LinkedTestsExist: a test that is named by a link to Go code is declared there. A name
// with an ellipsis stands for all that begin with it.
func TestDocs_LinkedTestsExist(t *testing.T) {
	found := 0
	for _, d := range documents(t) {
		d.prose(func(number int, line string) {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				names := testName.FindAllStringSubmatch(m[1], -1)
				if len(names) == 0 {
					continue
				}
				path := filepath.Join(filepath.Dir(d.path), m[2])
				declared := declaredTests(path)
				for _, name := range names {
					found++
					if !has(declared, name[1], name[2] != "") {
						t.Errorf("%s:%d: %s has no %s", d.path, number, path, name[0])
					}
				}
			}
		})
	}
	require.Greater(t, found, 50, "most guarantees link to their tests")
}

// TestDocs_NamesExist: inline code that looks like a path in the repository, or like the name of a
// test, is one.
func TestDocs_NamesExist(t *testing.T) {
	declared := declaredTests(".")
	for _, d := range documents(t) {
		d.prose(func(number int, line string) {
			for _, code := range inlineCode.FindAllString(line, -1) {
				code = strings.Trim(code, "`")
				if pathInRepository.MatchString(code) {
					if _, err := os.Stat(code); err != nil {
						t.Errorf("%s:%d: there is no %s", d.path, number, code)
					}
				}
				if m := testName.FindStringSubmatch(code); m != nil && m[0] == code && !has(declared, m[1], m[2] != "") {
					t.Errorf("%s:%d: there is no test %s", d.path, number, code)
				}
			}
		})
	}
}

// declaredTests returns the names of the tests, benchmarks and fuzz tests in a Go file, or in all
// Go files of a folder.
func declaredTests(path string) []string {
	var names []string
	_ = filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return nil // a link that leads nowhere is the other test's
		}
		text, err := os.ReadFile(path)
		for _, m := range declaration.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
		return err
	})
	return names
}

// has reports whether a name is among those declared, or begins one of them.
func has(declared []string, name string, prefix bool) bool {
	for _, d := range declared {
		if d == name || prefix && strings.HasPrefix(d, name) {
			return true
		}
	}
	return false
}

func TestDocs_ReadmeIsShort(t *testing.T) {
	for _, d := range documents(t) {
		if d.path == "README.md" {
			require.LessOrEqual(t, len(d.lines), maxReadmeLines)
			return
		}
	}
	t.Error("there is no README.md")
}

func TestDocs_LinesAreShort(t *testing.T) {
	for _, d := range documents(t) {
		generated := false
		for i, line := range d.lines {
			switch line + "\n" {
			case roomsBegin:
				generated = true
			case roomsEnd:
				generated = false
			}
			if n := utf8.RuneCountInString(line); n > maxLineLength && !generated {
				t.Errorf("%s:%d: %d characters, at most %d", d.path, i+1, n, maxLineLength)
			}
		}
	}
}

func TestDocs_SentencesAreShort(t *testing.T) {
	for _, d := range documents(t) {
		for _, s := range d.sentences() {
			if n := words(s.text); n > maxSentenceWords {
				t.Errorf("%s:%d: %d words, at most %d: %s", d.path, s.line, n, maxSentenceWords, s.text)
			}
		}
	}
}

// sentence is one sentence, with the line on which its paragraph begins.
type sentence struct {
	line int
	text string
}

// sentences returns the sentences outside code, tables, headings and comments. Inline code is one
// word, and of a link the text counts.
func (d document) sentences() []sentence {
	var list []sentence
	var paragraph []string
	start := 0
	flush := func() {
		text := strings.Join(paragraph, " ")
		paragraph = nil
		for text != "" {
			end := len(text)
			if at := sentenceEnd.FindStringIndex(text); at != nil {
				end = at[1]
			}
			list = append(list, sentence{start, strings.TrimSpace(text[:end])})
			text = text[end:]
		}
	}
	last := 0
	d.prose(func(number int, line string) {
		trimmed := strings.TrimSpace(line)
		if number != last+1 || listItem.MatchString(line) {
			flush() // code is between, or an item begins
		}
		last = number
		if trimmed == "" || trimmed[0] == '|' || heading.MatchString(line) || strings.HasPrefix(trimmed, "<!--") {
			flush()
			return
		}
		if len(paragraph) == 0 {
			start = number
		}
		line = listItem.ReplaceAllString(line, "")
		line = link.ReplaceAllString(inlineCode.ReplaceAllString(line, "code"), "$1")
		paragraph = append(paragraph, strings.TrimSpace(line))
	})
	flush()
	return list
}

// words counts what has a letter or a digit between spaces.
func words(text string) int {
	n := 0
	for word := range strings.FieldsSeq(text) {
		if strings.ContainsFunc(word, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			n++
		}
	}
	return n
}

func TestDocs_Sentences(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		var got []string
		for _, s := range (document{lines: strings.Split(text, "\n")}).sentences() {
			got = append(got, s.text)
		}
		require.Equal(t, want, got)
	}
	f("One. Two\ngoes on! (Three.) Four", "One.", "Two goes on!", "(Three.)", "Four")
	f("# Heading\nText\n\nmore", "Text", "more")
	f("- an item\n  of two lines\n- another\n1. third", "an item of two lines", "another", "third")
	f("Before:\n```\ncode. is not read\n```\nAfter", "Before:", "After")
	f("| a | b |\n|---|---|\ntext", "text")
	f("See [the file](a.md) v0.3 and `x. y`", "See the file v0.3 and code")
	f("<!-- note -->\nText", "Text")

	require.Equal(t, 4, words("one – two, v0.3 + code"))
}
