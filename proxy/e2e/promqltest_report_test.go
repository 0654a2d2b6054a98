package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// finding is a query whose answer differs in one way, at however many times it was asked.
type finding struct {
	file  string
	class class
	mode  string // instant or range
	query string
}

// tally counts the verdicts of a pass over all files.
type tally struct {
	evaluations int
	byClass     map[class]int
	findings    map[finding]int
	details     map[finding]string // the first evaluation of each, in full
}

func newTally() *tally {
	return &tally{byClass: map[class]int{}, findings: map[finding]int{}, details: map[finding]string{}}
}

func (ty *tally) add(ev evaluation, v verdict, wantJSON, gotJSON []byte) {
	ty.evaluations++
	ty.byClass[v.values]++
	if v.values != classExact {
		ty.note(ev, v.values, wantJSON, gotJSON)
	}
	if v.notes {
		ty.byClass[classNotes]++
		ty.note(ev, classNotes, wantJSON, gotJSON)
	}
}

func (ty *tally) note(ev evaluation, c class, wantJSON, gotJSON []byte) {
	f := finding{file: filepath.Base(ev.file), class: c, mode: "range", query: ev.query}
	when := fmt.Sprintf("%s..%s/%s", apiSeconds(ev.start), apiSeconds(ev.end), ev.step)
	if ev.step == 0 {
		f.mode, when = "instant", apiSeconds(ev.start)
	}
	ty.findings[f]++
	if ty.details[f] == "" {
		ty.details[f] = fmt.Sprintf("%s %s %s at %s: %s\n  want %s\n  got  %s", f.file, f.class, f.mode, when, f.query, shortJSON(wantJSON), shortJSON(gotJSON))
	}
}

// wrong is the number of evaluations with wrong values.
func (ty *tally) wrong() (n int) {
	for c, count := range ty.byClass {
		if c.wrong() {
			n += count
		}
	}
	return n
}

// row is a line of the table: see tableHeader.
func (ty *tally) row(name string) string {
	b := ty.byClass
	return fmt.Sprintf("%-40s %7d %7d %6d %6d %6d %6d %6d %6d %6d %6d %6d", name, ty.evaluations, b[classExact], b[classNear],
		ty.wrong(), b[classOutcome], b[classMissing], b[classExtra], b[classDifferent], b[classOrder], b[classErrorText], b[classNotes])
}

const tableHeader = "topology                                   evals   exact   near  wrong (outcome, miss, extra, differ, order) error-text notes"

// lines are the findings as the lists of known ones have them, sorted.
func (ty *tally) lines() []string {
	var lines []string
	for f := range ty.findings {
		lines = append(lines, ty.line(f))
	}
	slices.Sort(lines)
	return lines
}

// line is file, class, mode, how many evaluations, and the query.
func (ty *tally) line(f finding) string {
	return fmt.Sprintf("%s\t%s\t%s\t%d\t%s", f.file, f.class, f.mode, ty.findings[f], f.query)
}

// detailsOf returns the first few of the named lines in full.
func (ty *tally) detailsOf(lines []string) string {
	const most = 5
	byLine := map[string]string{}
	for f, detail := range ty.details {
		byLine[ty.line(f)] = detail
	}
	var out []string
	for _, line := range lines[:min(most, len(lines))] {
		out = append(out, byLine[line])
	}
	return strings.Join(out, "\n")
}

// listed prints lines, but not thousands of them.
func listed(lines []string) string {
	const most = 40
	if len(lines) > most {
		lines = append(slices.Clone(lines[:most]), fmt.Sprintf("… and %d more", len(lines)-most))
	}
	return strings.Join(lines, "\n")
}

// shortJSON cuts an answer for a report.
func shortJSON(raw []byte) string {
	const most = 2000
	if len(raw) <= most {
		return string(raw)
	}
	return fmt.Sprintf("%s… (%d bytes)", raw[:most], len(raw))
}

// knownFile lists the findings that a pass may have, one a line: file, class, mode, evaluations, query.
func knownFile(pass string) string {
	return filepath.Join("testdata", "promqltest", pass+".txt")
}

// readKnown returns the lines of a pass's list; a pass without a file has none.
func readKnown(pass string) ([]string, error) {
	raw, err := os.ReadFile(knownFile(pass))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(raw) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n"), err
}

// writeKnown replaces a pass's list; an empty one is no file.
func writeKnown(pass string, lines []string) error {
	if len(lines) == 0 {
		if err := os.Remove(knownFile(pass)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(knownFile(pass)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(knownFile(pass), []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// linesWithout returns the lines of a that are not in b.
func linesWithout(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(line string) bool { return slices.Contains(b, line) })
}
