@agent.tool
def batch_processing(requests: list) -> dict:
    """Process multiple similar requests in one session"""

    results = []

    # Process all requests in a single conversation
    batch_prompt = "Process these requests:\n"
    for i, request in enumerate(requests):
        batch_prompt += f"{i+1}. {request}\n"

    # Single AI call for multiple requests
    response = agent.chat(batch_prompt)

    # Parse batch response
    parsed_results = parse_batch_response(response, len(requests))

    return {
        "results": parsed_results,
        "requests_processed": len(requests),
        "sessions_used": 1,  # Only one session for multiple requests
        "cost_efficiency": f"Processed {len(requests)} requests in 1 session"
    }
