package input

// Hint says what the values of a field are like, for pages and editors: to Benthos all fields are of any type.
type Hint struct {
	// Number and Switch: an integer, or true or false; a text that holds one will do.
	Number, Switch bool
	// Values are all that there are. The Java connector takes their places, from 0, as well.
	Values []string
}

func oneOf[T ~string](values ...T) (h Hint) {
	for _, v := range values {
		h.Values = append(h.Values, string(v))
	}
	return h
}

// Hints are what is known of each field, by its name.
func Hints() map[string]Hint {
	all := map[string]Hint{}
	for _, f := range fields {
		h := f.hint
		switch f.byDefault.(type) {
		case int:
			h.Number = true
		case bool:
			h.Switch = true
		}
		all[f.name] = h
	}
	return all
}
