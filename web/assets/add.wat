;; Adds a dream to a picture as compose.js does with a canvas, a row at a time, two pixels at once.
(module
  (memory (export "memory") 1)

  ;; $from, $to: RGBA of $wide x $high, the picture and the sum; $wide is even. $halves: RGBA of $w x 2$h, what is added
  ;; above what is taken away; $w is even. $columns: for each two pixels of a row where what lies left of them begins in
  ;; $row, in bytes (i32, i32), and how near they are to what lies right of it, in 1/32768, four times each (8 x i16).
  ;; $row: room for 8 x ($w + 1) bytes. $mirrored: the picture is read from the right, if 1.
  (func (export "add") (param $from i32) (param $to i32) (param $wide i32) (param $high i32)
        (param $halves i32) (param $w i32) (param $h i32) (param $columns i32) (param $row i32) (param $mirrored i32)
    (local $y i32) (local $at f64) (local $above i32) (local $lower i32) (local $end i32)
    (local $p i32) (local $q i32) (local $taken i32) (local $out i32) (local $column i32)
    (local $source i32) (local $step i32) (local $turn i64) (local $left v128) (local $right v128)
    (local.set $taken (i32.mul (i32.mul (local.get $w) (local.get $h)) (i32.const 4)))
    (local.set $step (select (i32.const -8) (i32.const 8) (local.get $mirrored)))
    (local.set $turn (i64.extend_i32_u (i32.mul (local.get $mirrored) (i32.const 32))))
    (loop $rows
      ;; which two rows of the halves, and how near to the lower one, in 1/64
      (local.set $at (f64.max (f64.const 0) (f64.min (f64.convert_i32_s (i32.sub (local.get $h) (i32.const 1)))
        (f64.sub (f64.div (f64.mul (f64.add (f64.convert_i32_s (local.get $y)) (f64.const 0.5))
                                   (f64.convert_i32_s (local.get $h)))
                          (f64.convert_i32_s (local.get $high))) (f64.const 0.5)))))
      (local.set $above (i32.trunc_f64_s (local.get $at)))
      (local.set $lower (i32.trunc_f64_s (f64.add (f64.const 0.5) (f64.mul (f64.const 64)
        (f64.sub (local.get $at) (f64.convert_i32_s (local.get $above)))))))
      (local.set $p (i32.add (local.get $halves)
        (i32.mul (i32.mul (local.get $above) (local.get $w)) (i32.const 4))))
      (local.set $q (select (i32.add (local.get $p) (i32.mul (local.get $w) (i32.const 4))) (local.get $p)
        (i32.lt_s (i32.add (local.get $above) (i32.const 1)) (local.get $h))))
      ;; between them, in 1/64 of a grey level
      (local.set $out (local.get $row))
      (local.set $end (i32.add (local.get $row) (i32.mul (local.get $w) (i32.const 8))))
      (loop $across
        (v128.store (local.get $out) (i16x8.add
          (i16x8.mul (i16x8.splat (i32.sub (i32.const 64) (local.get $lower)))
            (i16x8.sub (v128.load8x8_u (local.get $p))
                       (v128.load8x8_u (i32.add (local.get $p) (local.get $taken)))))
          (i16x8.mul (i16x8.splat (local.get $lower))
            (i16x8.sub (v128.load8x8_u (local.get $q))
                       (v128.load8x8_u (i32.add (local.get $q) (local.get $taken)))))))
        (local.set $p (i32.add (local.get $p) (i32.const 8)))
        (local.set $q (i32.add (local.get $q) (i32.const 8)))
        (br_if $across (i32.lt_u (local.tee $out (i32.add (local.get $out) (i32.const 16))) (local.get $end))))
      (i64.store (local.get $end) (i64.load (i32.sub (local.get $end) (i32.const 8))))
      ;; the picture's row
      (local.set $source (i32.add (local.get $from) (i32.mul (i32.const 4) (i32.add
        (i32.mul (local.get $y) (local.get $wide))
        (select (i32.sub (local.get $wide) (i32.const 2)) (i32.const 0) (local.get $mirrored))))))
      (local.set $out (i32.add (local.get $to)
        (i32.mul (i32.mul (local.get $y) (local.get $wide)) (i32.const 4))))
      (local.set $end (i32.add (local.get $out) (i32.mul (local.get $wide) (i32.const 4))))
      (local.set $column (local.get $columns))
      (loop $pairs
        (local.set $p (i32.add (local.get $row) (i32.load (local.get $column))))
        (local.set $q (i32.add (local.get $row) (i32.load offset=4 (local.get $column))))
        (local.set $left (v128.load64_lane 1 (local.get $q) (v128.load64_zero (local.get $p))))
        (local.set $right (v128.load64_lane offset=8 1 (local.get $q) (v128.load64_zero offset=8 (local.get $p))))
        (i64.store (local.get $out) (i64x2.extract_lane 0 (i8x16.narrow_i16x8_u
          (i16x8.add
            (i16x8.extend_low_i8x16_u (i64x2.splat (i64.rotl (i64.load (local.get $source)) (local.get $turn))))
            (i16x8.shr_s (i16x8.add (i16x8.splat (i32.const 32)) (i16x8.add (local.get $left)
              (i16x8.q15mulr_sat_s (i16x8.sub (local.get $right) (local.get $left))
                                   (v128.load offset=8 (local.get $column))))) (i32.const 6)))
          (local.get $left))))
        (local.set $source (i32.add (local.get $source) (local.get $step)))
        (local.set $column (i32.add (local.get $column) (i32.const 24)))
        (br_if $pairs (i32.lt_u (local.tee $out (i32.add (local.get $out) (i32.const 8))) (local.get $end))))
      (br_if $rows (i32.lt_s (local.tee $y (i32.add (local.get $y) (i32.const 1))) (local.get $high))))))
