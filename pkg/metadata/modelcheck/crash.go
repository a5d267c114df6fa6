package modelcheck

import "marfs/pkg/mdfs/mdfssim"

// crashBudget bounds the combinations tried where all are too many.
const crashBudget = 512

// crashes calls see with the disks that a power failure now may leave: all
// combinations of surviving changes where they are few; else, for every
// number of changes one domain keeps, the others keep all they can or nothing
// they need not, and then combinations drawn at random (but the same every time).
func crashes(d *mdfssim.Disk, see func(*mdfssim.Disk) error) error {
	vs := d.Volatile()
	seen := map[uint64]bool{}
	return combinations(vs, func(keep []int) error {
		after := d.Crash(vs, keep)
		if h := after.Hash(); !seen[h] {
			seen[h] = true
			return see(after)
		}
		return nil
	})
}

func combinations(vs []mdfssim.Volatile, try func(keep []int) error) error {
	all := 1
	for _, v := range vs {
		if all *= v.Max - v.Min + 1; all > crashBudget {
			return someCombinations(vs, try)
		}
	}
	keep := make([]int, len(vs))
	for n := range all {
		for i, v := range vs {
			keep[i] = v.Min + n%(v.Max-v.Min+1)
			n /= v.Max - v.Min + 1
		}
		if err := try(keep); err != nil {
			return err
		}
	}
	return nil
}

func someCombinations(vs []mdfssim.Volatile, try func(keep []int) error) error {
	keep := make([]int, len(vs))
	for _, most := range []bool{false, true} {
		for i, v := range vs {
			for n := v.Min; n <= v.Max; n++ {
				for j, w := range vs {
					if keep[j] = w.Min; most {
						keep[j] = w.Max
					}
				}
				keep[i] = n
				if err := try(keep); err != nil {
					return err
				}
			}
		}
	}
	rnd := uint64(len(vs))
	for range crashBudget / 4 {
		for i, v := range vs {
			rnd = mix(rnd, uint64(i))
			keep[i] = v.Min + int(rnd%uint64(v.Max-v.Min+1))
		}
		if err := try(keep); err != nil {
			return err
		}
	}
	return nil
}
