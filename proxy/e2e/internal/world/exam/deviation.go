package exam

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/oneprom/oneprom/proxy/verify"
)

// Deviation gathers how far a candidate's float answers lie from the truth's, point by point.
type Deviation struct {
	Name    string
	Points  int // that both have
	Equal   int // bit for bit
	Missing int // points of the truth that the candidate lacks
	Extra   int // points of the candidate that the truth lacks
	Above   int // points that lie above what the truth shows there and one step around, by more than the factor given to Add

	errors []float64 // relative, sorted once asked
	sorted bool
	worst  float64 // the largest of errors
	where  string  // and the point it belongs to
}

// Add compares two answers to the same query. factor is how many times the truth, or its neighbours of one step, a value may be before it
// counts as above.
func (d *Deviation) Add(want, got *verify.Answer, factor float64) error {
	if want.Status != "success" || got.Status != "success" {
		return fmt.Errorf("want %s %s, got %s %s", want.Status, want.Error, got.Status, got.Error)
	}
	byName := map[string][]verify.Point{}
	for _, s := range got.Series {
		byName[s.Name] = s.Points
	}
	for _, s := range want.Series {
		if err := d.addSeries(s.Name, s.Points, byName[s.Name], factor); err != nil {
			return err
		}
		delete(byName, s.Name)
	}
	for _, points := range byName {
		d.Extra += len(points)
	}
	return nil
}

func (d *Deviation) addSeries(name string, want, got []verify.Point, factor float64) error {
	at := map[string]verify.Point{}
	for _, p := range got {
		at[p.T] = p
	}
	truth := make([]float64, len(want))
	for i, p := range want {
		var err error
		if truth[i], err = p.Float(); err != nil {
			return err
		}
	}
	common := 0
	for i, p := range want {
		g, ok := at[p.T]
		if !ok {
			d.Missing++
			continue
		}
		common++
		v, err := g.Float()
		if err != nil {
			return err
		}
		d.addPoint(name, p, g, truth[i], v)
		if v > factor*slices.Max(truth[max(0, i-1):min(len(truth), i+2)]) {
			d.Above++
		}
	}
	d.Extra += len(at) - common
	return nil
}

func (d *Deviation) addPoint(name string, want, got verify.Point, truth, value float64) {
	d.Points++
	d.sorted = false
	if want == got {
		d.Equal++
		d.errors = append(d.errors, 0)
		return
	}
	e := math.Abs(value-truth) / math.Abs(truth)
	if math.IsNaN(e) {
		e = math.Inf(1)
	}
	if e > d.worst {
		d.worst = e
		d.where = fmt.Sprintf("%s at %s: want %s, got %s", name, want.T, want.V, got.V)
	}
	d.errors = append(d.errors, e)
}

// Quantile is the relative error that a share q of all points does not exceed.
func (d *Deviation) Quantile(q float64) float64 {
	if len(d.errors) == 0 {
		return 0
	}
	if !d.sorted {
		slices.Sort(d.errors)
		d.sorted = true
	}
	return d.errors[int(math.Ceil(q*float64(len(d.errors))))-1]
}

// Deviations prints a table of several, and the worst point of each.
func Deviations(all []*Deviation) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 1, 2, ' ', 0)
	fmt.Fprintln(w, "\nquantity\tpoints\tequal\tp50\tp99\tp99.9\tmax\tmissing\textra\tabove")
	for _, d := range all {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.4f%%\t%.4f%%\t%.4f%%\t%.4f%%\t%d\t%d\t%d\n", d.Name, d.Points, d.Equal,
			100*d.Quantile(0.5), 100*d.Quantile(0.99), 100*d.Quantile(0.999), 100*d.Quantile(1), d.Missing, d.Extra, d.Above)
	}
	w.Flush()
	for _, d := range all {
		if d.where != "" {
			fmt.Fprintf(&b, "worst %s: %s\n", d.Name, d.where)
		}
	}
	return b.String()
}
