package input

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The coercions are those of Jackson, which reads the Java connector's configuration, as far as they do what was meant:
// a number or a boolean may also be a text. Refused here, though Jackson takes them: an empty text (it makes 0 or false of
// it), a fraction (it cuts it off), and numbers outside of what the field can mean.

// shown quotes a value for an error, cut where it is long. Never to be called with a secret.
func shown(v any) string {
	const most = 80
	switch t := v.(type) {
	case string:
		if len(t) > most {
			cut := most
			for !utf8.RuneStart(t[cut]) {
				cut--
			}
			return strconv.Quote(t[:cut]) + "…"
		}
		return strconv.Quote(t)
	case time.Time:
		return t.Format(time.RFC3339Nano)
	case map[string]any:
		return "(an object)"
	case []any:
		return "(a list)"
	}
	s := fmt.Sprint(v)
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// integer reads a value that YAML, JSON or Bloblang made a number of; ok is false when it is none. Fractions and numbers
// beyond 64 bits are errors. A float without a fraction counts as an integer everywhere, even where Jackson refuses it:
// a config that comes as JSON through the streams API may hold no other numbers.
func integer(v any) (n int64, ok bool, err error) {
	switch t := v.(type) {
	case int:
		return int64(t), true, nil
	case int64:
		return t, true, nil
	case int32:
		return int64(t), true, nil
	case uint64:
		if t > math.MaxInt64 {
			return 0, true, errors.New("is too large")
		}
		return int64(t), true, nil
	case float64:
		// Jackson cuts 30000.9 to 30000; nobody has meant that.
		switch {
		case math.IsNaN(t), math.IsInf(t, 0), t != math.Trunc(t):
			return 0, true, errors.New("is not a whole number")
		case t < -1<<63 || t >= 1<<63:
			return 0, true, errors.New("is too large")
		}
		return int64(t), true, nil
	case json.Number:
		if n, err := t.Int64(); err == nil {
			return n, true, nil
		}
		f, err := t.Float64()
		if err != nil {
			return 0, true, errors.New("is too large")
		}
		return integer(f)
	}
	return 0, false, nil
}

// digits tells whether s is an optional sign and decimal digits alone, which is what Java reads as an integer.
func digits(s string) bool {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "+"), "-")
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// coerceInt reads a whole number from low to high. unit and example are for the error.
func coerceInt(v any, low, high int64, unit, example string) (int64, error) {
	wrong := func(what string) error {
		return fmt.Errorf("%s %s: write %s, for example %s", shown(v), what, unit, example)
	}
	n, ok, err := integer(v)
	if err != nil {
		return 0, wrong(err.Error())
	}
	if !ok {
		s, ok := v.(string)
		if !ok {
			return 0, wrong("is not a number")
		}
		s = strings.TrimSpace(s)
		switch {
		case s == "":
			return 0, fmt.Errorf("is empty: write %s, for example %s, or leave the field out", unit, example)
		case !digits(s):
			return 0, wrong("is not a whole number in digits")
		}
		if n, err = strconv.ParseInt(s, 10, 64); err != nil {
			return 0, wrong("is too large")
		}
	}
	switch {
	case n < low:
		return 0, wrong(fmt.Sprintf("is less than %d", low))
	case n > high:
		return 0, wrong(fmt.Sprintf("is more than %d", high))
	}
	return n, nil
}

// coerceMillis reads a number of milliseconds.
func coerceMillis(v any, low int64, example string) (time.Duration, error) {
	if s, ok := v.(string); ok {
		if d, err := time.ParseDuration(strings.TrimSpace(s)); err == nil && !digits(strings.TrimSpace(s)) && d > 0 {
			return 0, fmt.Errorf("%s has a unit: write milliseconds as a number, %d", shown(v), d.Milliseconds())
		}
	}
	n, err := coerceInt(v, low, int64(math.MaxInt64/time.Millisecond), "a number of milliseconds", example)
	return time.Duration(n) * time.Millisecond, err
}

// coerceBool reads a boolean: as it is, as a number (0 is false, any other true), or as a text in Jackson's spellings.
func coerceBool(v any) (bool, error) {
	if b, ok := v.(bool); ok {
		return b, nil
	}
	if n, ok, err := integer(v); ok && err == nil {
		return n != 0, nil
	}
	if s, ok := v.(string); ok {
		switch strings.TrimSpace(s) {
		case "true", "True", "TRUE":
			return true, nil
		case "false", "False", "FALSE":
			return false, nil
		case "":
			return false, errors.New("is empty: write true or false, or leave the field out")
		}
	}
	return false, fmt.Errorf("%s is not a boolean: write true or false", shown(v))
}

// coerceEnum reads one of the options by its exact name or by its place among them, as Java's enums can be written.
func coerceEnum[T ~string](v any, options ...T) (T, error) {
	names := make([]string, len(options))
	for i, o := range options {
		names[i] = string(o)
	}
	list := strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
	text, isText := v.(string)
	text = strings.TrimSpace(text)
	if isText {
		for _, o := range options {
			if text == string(o) {
				return o, nil
			}
		}
		for _, o := range options {
			if strings.EqualFold(strings.NewReplacer("-", "_", " ", "_").Replace(text), string(o)) {
				return "", fmt.Errorf("%s is not written as it must be: write %s", shown(v), o)
			}
		}
		if text == "" {
			return "", fmt.Errorf("is empty: write %s, or leave the field out", list)
		}
	}
	for i, o := range options {
		if n, ok, err := integer(v); text == strconv.Itoa(i) || ok && err == nil && n == int64(i) {
			return o, nil
		}
	}
	return "", fmt.Errorf("%s is none of its values: write %s", shown(v), list)
}

// coerceString reads a text. Booleans and whole numbers are taken by their digits and words, as Jackson does; numbers with
// a fraction and dates are not, since YAML has already changed how they were written (1.50 is 1.5 by now).
func coerceString(v any) (string, error) {
	switch t := v.(type) {
	case string:
		return t, nil
	case bool:
		return strconv.FormatBool(t), nil
	}
	if n, ok, err := integer(v); ok && err == nil {
		return strconv.FormatInt(n, 10), nil
	}
	switch v.(type) {
	case map[string]any, []any:
		return "", fmt.Errorf("%s is not a text: write one value", shown(v))
	}
	return "", fmt.Errorf("%s is not a text: write it in quotes", shown(v))
}
