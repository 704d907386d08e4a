"""What serving engines write about speculation, in their current forms."""

from __future__ import annotations

VLLM_LINE = (
    "(APIServer pid=412) INFO 11-20 10:14:22 [metrics.py:101] SpecDecoding metrics: "
    "Mean acceptance length: 2.26, "
    "Accepted throughput: 12.60 tokens/s, Drafted throughput: 30.00 tokens/s, Accepted: 126 tokens, "
    "Drafted: 300 tokens, Per-position acceptance rate: 0.620, 0.400, 0.240, Avg Draft acceptance rate: 42.0%"
)
VLLM_METRICS = """\
# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 1000.0
# HELP vllm:spec_decode_num_drafts_created Number of spec decoding drafts.
vllm:spec_decode_num_drafts_created{engine="0",model_name="m"} 1.7637e+09
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 3000.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 1605.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 730.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="1"} 520.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="2"} 355.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 40.0
vllm:num_requests_running{engine="0",model_name="m"} 3.0
"""
VLLM_RESPONSE = {
    "id": "cmpl-1",
    "choices": [{"text": "x"}],
    "metrics": {
        "speculative_decoding": {
            "mean_acceptance_length": 1.2326,
            "draft_acceptance_rate": 0.0775,
            "acceptance_histogram": [39, 1, 0, 3],
            "num_spec_steps": 43,
            "num_accepted_draft_tokens": 10,
            "num_draft_tokens": 129,
            "num_spec_tokens": 3,
        }
    },
}
SGLANG_LINE = (
    "[2026-11-20 10:14:22 TP0] Decode batch, #running-req: {running}, #token: 20480, token usage: 0.05, "
    "accept len: {length:.2f}, accept rate: {rate:.2f}, cuda graph: True, gen throughput (token/s): 512.33, "
    "#queue-req: 0"
)
SGLANG_RESPONSE = {
    "text": "x",
    "meta_info": {
        "completion_tokens": 63,
        "spec_accept_rate": 0.4,
        "spec_accept_length": 3.15,
        "spec_num_correct_drafts": 40,
        "spec_num_proposed_drafts": 100,
        "spec_verify_ct": 20,
        "spec_correct_drafts_histogram": [4, 4, 4, 4, 4],
    },
}
TASK_12 = "slot print_timing: id  0 | task 12 | "
TASK_13 = "slot print_timing: id  1 | task 13 | "
LLAMACPP_SERVER = f"""\
0.12.345.678 I {TASK_12}       eval time =    5402.11 ms /   200 tokens
0.12.345.679 I {TASK_12}draft acceptance = 0.66000 (  132 accepted /   200 generated), mean len =  3.64
0.12.345.680 T {TASK_12}     acc per pos = (0.820, 0.720, 0.600, 0.500)
0.14.000.000 I {TASK_13}draft acceptance = 0.50000 (   40 accepted /    80 generated), mean len =  3.00
0.14.000.001 T {TASK_13}     acc per pos = (0.700, 0.600, 0.400, 0.300)
"""
LLAMACPP_STATISTICS = (
    "statistics        draft-mtp: #calls(b,g,a) =    3    134    134, "
    "#gen drafts =    134, #acc drafts =   109, #gen tokens =    536, #acc tokens =   354, "
    "#mean acc len = 3.64, "
    "#acc rate/pos = (0.813, 0.716, 0.619, 0.493), dur(b,g,a) = 0.010, 812.123, 0.200 ms"
)
LLAMACPP_EXAMPLE = """\
encoded   13 tokens in    0.141 seconds, speed:   92.2 t/s
n_draft   = 8
n_predict = 128
n_drafted = 240
n_accept  = 90
accept    = 37.500%
"""
CSV = "request,round,drafted,accepted\na,0,4,4\na,1,4,2\nb,0,4,0\na,2,3,3\nb,1,0,0\n"
