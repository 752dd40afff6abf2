package input

import (
	"cmp"
	"fmt"
	"testing"
)

// What pages and editors are told is what the parser takes.
func TestHintsSayWhatIsTaken(t *testing.T) {
	hints := Hints()
	for _, f := range fields {
		h := hints[f.name]
		for _, v := range h.Values {
			if err := f.apply(&Config{}, v); err != nil {
				t.Errorf("%s: %v", f.name, err)
			}
		}
		if len(h.Values) > 0 && f.apply(&Config{}, "SOMETHING_ELSE") == nil {
			t.Errorf("%s takes more than %v", f.name, h.Values)
		}
		right := "true"
		if h.Number {
			right = fmt.Sprint(cmp.Or(f.byDefault, any(10))) // as a text
		}
		if h.Number || h.Switch {
			if err := f.apply(&Config{}, right); err != nil || f.apply(&Config{}, "soon") == nil {
				t.Errorf("%s: %+v, and %v", f.name, h, err)
			}
		}
	}
	if len(hints["initialPositionInStream"].Values) != 3 || !hints["numRetries"].Number || !hints["createTable"].Switch {
		t.Errorf("%+v", hints)
	}
}
