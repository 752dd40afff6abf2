package dynamotest

import (
	"math/big"
	"strconv"
	"strings"
)

// Limits of a DynamoDB number: 38 significant digits, magnitude from 1E-130 to 9.99…E+125.
const (
	maxDigits   = 38
	minExponent = -130
	maxExponent = 125
)

// decimal is coef × 10^exp without trailing zeros in coef, so equal numbers have equal fields.
// Neither float64 (a lease counter above 2^53 would lose its last digit) nor big.Rat (no way to count significant digits) will do.
type decimal struct {
	coef *big.Int
	exp  int
}

var ten = big.NewInt(10)

// parseDecimal reads a number as DynamoDB takes it ("-1.50e3"), refusing what DynamoDB refuses.
func parseDecimal(s string) (decimal, error) {
	bad := validation("The parameter cannot be converted to a numeric value: %s", s)
	rest, exp := s, 0
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		e, err := strconv.Atoi(rest[i+1:])
		if err != nil || e > 1<<20 || e < -1<<20 {
			return decimal{}, bad
		}
		rest, exp = rest[:i], e
	}
	negative := false
	if rest != "" && (rest[0] == '+' || rest[0] == '-') {
		negative, rest = rest[0] == '-', rest[1:]
	}
	whole, fraction, _ := strings.Cut(rest, ".")
	digits := whole + fraction
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return decimal{}, bad
	}
	exp -= len(fraction)
	digits = strings.TrimLeft(digits, "0")
	significant := strings.TrimRight(digits, "0")
	exp += len(digits) - len(significant)
	if significant == "" {
		return decimal{coef: new(big.Int)}, nil
	}
	if len(significant) > maxDigits {
		return decimal{}, validation("Attempting to store more than 38 significant digits in a Number")
	}
	coef, _ := new(big.Int).SetString(significant, 10)
	if negative {
		coef.Neg(coef)
	}
	return decimal{coef, exp}.checked()
}

// checked refuses numbers outside DynamoDB's range.
func (d decimal) checked() (decimal, error) {
	if d.coef.Sign() == 0 {
		return d, nil
	}
	digits := len(new(big.Int).Abs(d.coef).String())
	switch magnitude := digits + d.exp - 1; {
	case digits > maxDigits:
		return d, validation("Attempting to store more than 38 significant digits in a Number")
	case magnitude > maxExponent:
		return d, validation("Number overflow. Attempting to store a number with magnitude larger than supported range")
	case magnitude < minExponent:
		return d, validation("Number underflow. Attempting to store a number with magnitude smaller than supported range")
	}
	return d, nil
}

// aligned returns both coefficients at the smaller of the two exponents.
func aligned(a, b decimal) (x, y *big.Int, exp int) {
	exp = min(a.exp, b.exp)
	scale := func(d decimal) *big.Int {
		p := new(big.Int).Exp(ten, big.NewInt(int64(d.exp-exp)), nil)
		return p.Mul(p, d.coef)
	}
	return scale(a), scale(b), exp
}

func (d decimal) cmp(o decimal) int {
	x, y, _ := aligned(d, o)
	return x.Cmp(y)
}

// add returns d + o, or d - o with subtract.
func (d decimal) add(o decimal, subtract bool) (decimal, error) {
	x, y, exp := aligned(d, o)
	if subtract {
		y.Neg(y)
	}
	sum := x.Add(x, y)
	if sum.Sign() == 0 {
		return decimal{coef: sum}, nil
	}
	for {
		q, r := new(big.Int).QuoRem(sum, ten, new(big.Int))
		if r.Sign() != 0 {
			break
		}
		sum, exp = q, exp+1
	}
	return decimal{sum, exp}.checked()
}

// String is the plain form without an exponent, which is what DynamoDB answers with.
func (d decimal) String() string {
	digits := new(big.Int).Abs(d.coef).String()
	switch {
	case d.exp >= 0 && d.coef.Sign() != 0:
		digits += strings.Repeat("0", d.exp)
	case d.exp < 0:
		if n := -d.exp - len(digits); n >= 0 {
			digits = strings.Repeat("0", n+1) + digits
		}
		point := len(digits) + d.exp
		digits = digits[:point] + "." + digits[point:]
	}
	if d.coef.Sign() < 0 {
		digits = "-" + digits
	}
	return digits
}
