package config

import (
	"fmt"
	"slices"
)

// validateCopies checks `copies_of` as far as one group shows what is wrong with it.
func (c *Group) validateCopies(errs *FieldErrors) {
	for i, name := range c.CopiesOf {
		switch {
		case name == c.Name:
			errs.Add("a group cannot hold copies of itself: name the groups that its data comes from", "copies_of", i)
		case slices.Index(c.CopiesOf, name) < i:
			errs.Add(fmt.Sprintf("%q is there twice: remove one", name), "copies_of", i)
		}
	}
}
