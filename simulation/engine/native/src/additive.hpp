static int32_t additive_round(const ps_phones *, const ps_local *, const ps_additive *, ps_answer *, int32_t) { return 2; }
