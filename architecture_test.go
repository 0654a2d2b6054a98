package main

import (
	"cmp"
	"flag"
	"fmt"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the table of the rooms into ARCHITECTURE.md")

const (
	roomsBegin = "<!-- rooms: go test -run Architecture -update . -->\n"
	roomsEnd   = "<!-- end of rooms -->\n"
)

// floors are the top folders of the module, from the roof to the ground. The command is
// the roof.
var floors = []string{"", "proxy", "promqlx", "servergroup", "dedup"}

// room is a package of the module.
type room struct {
	path      string // relative to the module; "" is the command
	story     string // the first sentence of its doc comment, without the name
	imports   []string
	testsOnly bool // the command does not import it, neither by itself nor through others
	height    int  // 0 if it imports no room, else one more than the highest that it imports
}

// TestArchitecture_Rooms: the table in ARCHITECTURE.md has the packages as they are.
func TestArchitecture_Rooms(t *testing.T) {
	rooms, err := readRooms(os.DirFS("."))
	require.NoError(t, err)
	for _, problem := range problems(rooms) {
		t.Error(problem)
	}
	const file = "ARCHITECTURE.md"
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), roomsBegin)
	require.True(t, ok, "%s has no line %q", file, roomsBegin)
	got, after, ok := strings.Cut(rest, roomsEnd)
	require.True(t, ok, "%s has no line %q", file, roomsEnd)
	want := table(rooms)
	switch {
	case got == want:
	case *update:
		require.NoError(t, os.WriteFile(file, []byte(before+roomsBegin+want+roomsEnd+after), 0o644))
	default:
		t.Errorf("the table of %s is not that of the packages; run: go test -run Architecture -update .\nIt should be:\n%s", file, want)
	}
}

// readRooms reads the packages of a module, from the roof to the ground. It leaves out
// folders for tests alone: testdata and proxy/e2e.
func readRooms(module fs.FS) ([]*room, error) {
	mod, err := fs.ReadFile(module, "go.mod")
	if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(string(mod), "module "), "\n")
	rooms := map[string]*room{}
	err = fs.WalkDir(module, ".", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && file != "." && (strings.HasPrefix(path.Base(file), ".") || path.Base(file) == "testdata" || file == "proxy/e2e"):
			return fs.SkipDir
		case entry.IsDir() || path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		dir := strings.TrimPrefix(path.Dir(file), ".")
		if rooms[dir] == nil {
			rooms[dir] = &room{path: dir, testsOnly: true}
		}
		return rooms[dir].read(module, file, name)
	})
	if err != nil {
		return nil, err
	}
	for _, r := range rooms {
		slices.Sort(r.imports)
		r.imports = slices.Compact(r.imports)
	}
	for _, r := range rooms {
		height(rooms, r)
	}
	reach(rooms, rooms[""])
	return slices.SortedFunc(maps.Values(rooms), func(a, b *room) int {
		return cmp.Or(cmp.Compare(floor(a.path), floor(b.path)), cmp.Compare(b.height, a.height), cmp.Compare(a.path, b.path))
	}), nil
}

var storyBegin = regexp.MustCompile(`^(?:Package|Command) \w+ (?:is )?`)

// read adds what one file says.
func (r *room) read(module fs.FS, file, name string) error {
	source, err := fs.ReadFile(module, file)
	if err != nil {
		return err
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, source, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return err
	}
	if r.story == "" {
		r.story = storyBegin.ReplaceAllString(new(doc.Package).Synopsis(f.Doc.Text()), "")
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		if ours, ok := strings.CutPrefix(imported, name+"/"); ok {
			r.imports = append(r.imports, ours)
		}
	}
	return nil
}

// height sets the height of a room and of all that are below it, and returns it.
func height(rooms map[string]*room, r *room) int {
	if r.height > 0 {
		return r.height // a room without imports, whose height is 0, costs nothing
	}
	for _, imported := range r.imports {
		if below := rooms[imported]; below != nil { // imports have no cycles
			r.height = max(r.height, height(rooms, below)+1)
		}
	}
	return r.height
}

// reach marks what a room leads to as no room for tests only.
func reach(rooms map[string]*room, r *room) {
	if r == nil || !r.testsOnly {
		return
	}
	r.testsOnly = false
	for _, imported := range r.imports {
		reach(rooms, rooms[imported])
	}
}

// floor returns the index of a room's floor, -1 if it is on none.
func floor(room string) int {
	top, _, _ := strings.Cut(room, "/")
	return slices.Index(floors, top)
}

// problems lists what no table can mend.
func problems(rooms []*room) []string {
	var list []string
	for _, r := range rooms {
		if r.story == "" {
			list = append(list, fmt.Sprintf("package %q has no doc comment that tells its story", r.path))
		}
		if floor(r.path) < 0 {
			list = append(list, fmt.Sprintf("package %q is on no floor: those are %q", r.path, floors[1:]))
		}
		for _, imported := range r.imports {
			if floor(imported) < floor(r.path) {
				list = append(list, fmt.Sprintf("package %q imports %q: imports run from the roof to the ground", r.path, imported))
			}
		}
	}
	return list
}

func table(rooms []*room) string {
	var b strings.Builder
	b.WriteString("| Room | Story | Imports |\n|---|---|---|\n")
	for _, r := range rooms {
		story := strings.ReplaceAll(r.story, "|", `\|`)
		if r.testsOnly {
			story += " (Tests only.)"
		}
		imports := make([]string, len(r.imports))
		for i, imported := range r.imports {
			imports[i] = "`" + imported + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", cmp.Or(r.path, "main"), story, strings.Join(imports, ", "))
	}
	return b.String()
}

func TestArchitecture_TableAndProblems(t *testing.T) {
	module := fstest.MapFS{
		"go.mod":              {Data: []byte("module example.org/house\n\ngo 1.26\n")},
		"main.go":             {Data: []byte("// Command house is a house.\npackage main\n\nimport _ \"example.org/house/proxy\"\n")},
		"main_test.go":        {Data: []byte("package main\n\nimport _ \"example.org/house/attic\"\n")},
		"proxy/a.go":          {Data: []byte("package proxy\n\nimport (\n\t_ \"fmt\"\n\n\t_ \"example.org/house/dedup\"\n)\n")},
		"proxy/b.go":          {Data: []byte("//go:build never\n\n// Package proxy serves a|b. It has\n// more to say.\npackage proxy\n\nimport _ \"example.org/house/dedup\"\n")},
		"proxy/e2e/x/x.go":    {Data: []byte("package x\n")},
		"dedup/dedup.go":      {Data: []byte("// Package dedup merges.\npackage dedup\n")},
		"dedup/helper/h.go":   {Data: []byte("// Package helper helps.\npackage helper\n\nimport _ \"example.org/house/dedup\"\n")},
		"dedup/testdata/x.go": {Data: []byte("package x\n")},
	}
	f := func(wantTable string, wantProblems ...string) {
		t.Helper()
		rooms, err := readRooms(module)
		require.NoError(t, err)
		require.Equal(t, "| Room | Story | Imports |\n|---|---|---|\n"+wantTable, table(rooms))
		require.Equal(t, wantProblems, problems(rooms))
	}
	f("| `main` | a house. | `proxy` |\n" +
		"| `proxy` | serves a\\|b. | `dedup` |\n" +
		"| `dedup/helper` | helps. (Tests only.) | `dedup` |\n" +
		"| `dedup` | merges. |  |\n")

	module["dedup/dedup.go"] = &fstest.MapFile{Data: []byte("package dedup\n\nimport _ \"example.org/house/attic\"\n")}
	module["attic/attic.go"] = &fstest.MapFile{Data: []byte("// Package attic keeps.\npackage attic\n")}
	f("| `attic` | keeps. |  |\n"+
		"| `main` | a house. | `proxy` |\n"+
		"| `proxy` | serves a\\|b. | `dedup` |\n"+
		"| `dedup/helper` | helps. (Tests only.) | `dedup` |\n"+
		"| `dedup` |  | `attic` |\n",
		`package "attic" is on no floor: those are ["proxy" "promqlx" "servergroup" "dedup"]`,
		`package "dedup" has no doc comment that tells its story`,
		`package "dedup" imports "attic": imports run from the roof to the ground`)
}

// TestArchitecture_Functions: a link whose text is a function, or Type.Method, leads to the file
// that has it.
func TestArchitecture_Functions(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	require.NoError(t, err)
	links := regexp.MustCompile("\\[`(?:(\\w+)\\.)?(\\w+)`\\]\\(([^)]+\\.go)\\)").FindAllStringSubmatch(string(page), -1)
	require.Greater(t, len(links), 15)
	for _, link := range links {
		receiver, name, file := link[1], link[2], link[3]
		declared := `(?m)^func ` + name + `\b`
		if receiver != "" {
			declared = `(?m)^func \(\w+ \*?` + receiver + `\) ` + name + `\b`
		}
		code, err := os.ReadFile(file)
		require.NoError(t, err)
		require.True(t, regexp.MustCompile(declared).Match(code), "%s: %s declares no such function", link[0], file)
	}
}
